//go:build linux

package pcscd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// friendlyName is what a YubiKey 5 calls itself over USB. pcscd adds two numbers to it.
const friendlyName = "Yubico YubiKey OTP+FIDO+CCID"

const (
	daemonStartTimeout = 30 * time.Second
	daemonPoll         = 20 * time.Millisecond
	pcscPIDFile        = "/run/pcscd/pcscd.pid"
	lockName           = "pivtest-pcscd.lock" // in the directory for temporary files
)

// vpcdPort is where the first virtual reader listens; the second one is one port higher. It is not the port in the
// configuration of Debian's vsmartcard-vpcd, 35963: Linux gives that one to outgoing connections of other programs, and the
// reader then cannot have it.
const vpcdPort = 27771

// DefaultAddr is the address of the first virtual reader.
var DefaultAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(vpcdPort))

// daemon is pcscd with two virtual readers, and the lock that keeps the processes of other tests away from it.
type daemon struct {
	lock    *os.File
	process *os.Process   // nil if the daemon is not ours
	output  *os.File      // what it printed
	exited  chan struct{} // closed at the end of the process, which is exitErr
	exitErr error

	names  [seatCount]string
	events [seatCount]uint32
}

func (d *daemon) seat(i int) seat {
	return seat{i, net.JoinHostPort("127.0.0.1", strconv.Itoa(vpcdPort+i)), d.names[i], &d.events[i]}
}

// startDaemon waits for the lock, and runs pcscd unless one runs already: that of a developer's machine, say, which then has
// to have the virtual readers.
func startDaemon(ctx context.Context) (*daemon, error) {
	lock, err := lockFile(ctx, filepath.Join(os.TempDir(), lockName))
	if err != nil {
		return nil, fmt.Errorf("pivtest: waiting for the virtual readers: %w", err)
	}
	return startLocked(ctx, lock)
}

// startLocked is startDaemon with the lock at hand, which it closes if it fails.
func startLocked(ctx context.Context, lock *os.File) (*daemon, error) {
	d := &daemon{lock: lock}
	ctx, cancel := context.WithTimeout(ctx, daemonStartTimeout)
	defer cancel()
	if _, err := readers(ctx); err != nil {
		// The files are not wanted any more when pcscd has started, and nobody would delete them should we be killed.
		dir, err := os.MkdirTemp("", "pivtest-pcscd-")
		if err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		defer os.RemoveAll(dir)
		if err := d.run(ctx, dir); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
	}
	if err := d.waitReaders(ctx); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// run starts pcscd in the foreground with a configuration of its own. It dies with this process.
func (d *daemon) run(ctx context.Context, dir string) error {
	pcscd, err := findDaemon()
	if err != nil {
		return err
	}
	driver, err := findDriver()
	if err != nil {
		return err
	}
	config := filepath.Join(dir, "reader.conf")
	if err := os.WriteFile(config, readerConfig(friendlyName, driver), 0o600); err != nil {
		return err
	}
	if d.output, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return err
	}
	if err := d.exec(ctx, pcscd, config); err != nil {
		return errors.Join(fmt.Errorf("pivtest: starting pcscd: %w", err), d.output.Close())
	}
	return nil
}

// exec starts the process from a thread that lives as long as it: the kernel sends the death signal when the thread that
// started a process ends, not when its parent does. The process outlives ctx.
func (d *daemon) exec(ctx context.Context, pcscd, config string) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), pcscd, "--foreground", "--config", config)
	cmd.Stdout, cmd.Stderr = d.output, d.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.ExtraFiles = []*os.File{d.lock} // should we die, the lock is held until pcscd is gone too
	started := make(chan error)
	d.exited = make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			d.exitErr = cmp.Or(cmd.Wait(), errors.New("exit status 0"))
			close(d.exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	d.process = cmd.Process
	return nil
}

// waitReaders waits until PC/SC lists both readers, and learns their names.
func (d *daemon) waitReaders(ctx context.Context) error {
	ticker := time.NewTicker(daemonPoll)
	defer ticker.Stop()
	for {
		all, err := readers(ctx)
		if err == nil && d.findReaders(all) {
			return nil
		}
		if err == nil && d.process == nil {
			return fmt.Errorf("pivtest: a pcscd runs already, without two virtual readers named %q (FRIENDLYNAME in /etc/reader.conf.d/vpcd): stop it, or name them so and let them listen on port %d (CHANNELID 0x%X)", friendlyName, vpcdPort, vpcdPort)
		}
		select {
		case <-ticker.C:
		case <-d.exited:
			return fmt.Errorf("pivtest: pcscd ended at once (it needs root): %w\n%s", d.exitErr, d.log())
		case <-ctx.Done():
			return fmt.Errorf("pivtest: pcscd does not list its virtual readers: %w\n%s", ctx.Err(), d.log())
		}
	}
}

func (d *daemon) findReaders(all []readerState) bool {
	found := 0
	for _, r := range all {
		if strings.HasPrefix(r.name(), friendlyName) && found < seatCount {
			d.names[found] = r.name()
			found++
		}
	}
	return found == seatCount
}

// stop ends pcscd by its process id, if it is ours, and lets the next process have the readers. An orderly end would take
// pcscd two seconds, and it has nothing to put in order but its socket.
func (d *daemon) stop() error {
	defer d.lock.Close()
	if d.process == nil {
		return nil
	}
	defer d.output.Close()
	if err := d.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.exited
	var errs []error
	for _, name := range []string{pcscSocket, pcscPIDFile} {
		if err := os.Remove(name); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// log returns the end of what pcscd printed. It logs errors only: no commands.
func (d *daemon) log() []byte {
	const enough = 4096
	if d.output == nil {
		return nil
	}
	b, _ := io.ReadAll(io.NewSectionReader(d.output, 0, math.MaxInt64)) // as much as can be had
	return b[max(0, len(b)-enough):]
}

// ErrNotInstalled is returned when pcscd or the driver of the virtual reader is missing. The packages are pcscd and
// vsmartcard-vpcd on Debian and Ubuntu.
var ErrNotInstalled = errors.New("pivtest: pcscd or vsmartcard-vpcd is not installed (apt-get install pcscd vsmartcard-vpcd)")

func findDaemon() (string, error) {
	for _, name := range []string{"pcscd", "/usr/sbin/pcscd", "/usr/local/sbin/pcscd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNotInstalled
}

// findDriver looks for vpcd where the configuration of its package says, and where distributions put drivers.
func findDriver() (string, error) {
	config, err := os.ReadFile("/etc/reader.conf.d/vpcd")
	if err == nil {
		for line := range bytes.Lines(config) {
			if f := strings.Fields(string(line)); len(f) == 2 && f[0] == "LIBPATH" {
				return f[1], nil
			}
		}
	}
	for _, pattern := range []string{"/usr/lib*/pcsc/drivers/serial/libifdvpcd.so*", "/usr/lib/*/pcsc/drivers/serial/libifdvpcd.so*"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", ErrNotInstalled
}

// readerConfig is a reader.conf(5) with one virtual device, which has two slots.
func readerConfig(name, driver string) []byte {
	return fmt.Appendf(nil, "FRIENDLYNAME %q\nDEVICENAME /dev/null:0x%X\nLIBPATH %s\nCHANNELID 0x%X\n", name, vpcdPort, driver, vpcdPort)
}

// lockFile waits for an exclusive lock on a file. The lock belongs to the open file: it ends when the last process that has
// the file open closes it or ends.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	const poll = 50 * time.Millisecond
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		}
	}
}
