//go:build unix

// Package pgtest starts PostgreSQL and pgbouncer for tests, on Unix sockets in a
// temporary directory.
package pgtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Server is PostgreSQL with an empty cluster.
type Server struct {
	dir  string // of the cluster and the socket
	bin  string
	cred *syscall.Credential

	mu      sync.Mutex
	process *process

	bouncer *process
}

// Missing says which program is not installed, and which package has it; "" if
// all are there.
func Missing() string {
	if _, err := postgres(); err != nil {
		return err.Error()
	}
	if _, err := find("pgbouncer", "/usr/sbin", "/usr/local/sbin"); err != nil {
		return "pgbouncer is not installed (Debian: apt-get install pgbouncer)"
	}
	return ""
}

// postgres returns the directory with the server's programs, which Debian does not
// put on PATH.
func postgres() (string, error) {
	versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(versions, func(a, b string) int { return number(b) - number(a) })
	path, err := find("initdb", versions...)
	if err != nil {
		return "", errors.New("PostgreSQL is not installed (Debian: apt-get install postgresql)")
	}
	return filepath.Dir(path), nil
}

func number(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

func find(name string, dirs ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.EvalSymlinks(path)
	}
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fs.ErrNotExist
}

// Start creates a cluster and starts the server. durable asks for fsync, which
// tests need only if they measure.
func Start(ctx context.Context, durable bool) (*Server, error) {
	bin, err := postgres()
	if err != nil {
		return nil, err
	}
	// Not t.TempDir, whose names are too long for a socket.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.initialize(ctx, durable); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	if err := s.StartAgain(ctx); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

func (s *Server) initialize(ctx context.Context, durable bool) error {
	if os.Getuid() == 0 { // initdb refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, int(uid), int(gid)); err != nil {
			return err
		}
	}
	initdb := s.command(ctx, filepath.Join(s.bin, "initdb"), "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8",
		"--locale=C", "--pgdata="+s.data())
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	settings := fmt.Sprintf(`
listen_addresses = ''
port = %d
unix_socket_directories = '%s'
max_connections = 200
shared_buffers = 32MB
autovacuum_naptime = 1h
fsync = %t
`, portDatabase, s.dir, durable)
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(settings)
	return errors.Join(err, f.Close())
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = attributes(s.cred)
	return cmd
}

// URL is the address of a database of the server.
func (s *Server) URL() string { return address(s.dir, portDatabase) }

// The ports are parts of the names of sockets.
const (
	portDatabase = 5432
	portBouncer  = 6432
)

func address(dir string, port int) string {
	return fmt.Sprintf("postgres:///postgres?user=postgres&port=%d&host=%s", port, dir)
}

func socket(dir string, port int) string { return filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", port)) }

// StartAgain starts the server after Stop.
func (s *Server) StartAgain(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := s.command(context.WithoutCancel(ctx), filepath.Join(s.bin, "postgres"), "-D", s.data())
	p, err := start(cmd)
	if err != nil {
		return err
	}
	if err := p.ready(ctx, socket(s.dir, portDatabase)); err != nil {
		p.end(syscall.SIGQUIT)
		return err
	}
	s.process = p
	return nil
}

// Stop ends the server. With fast it rolls back what is in progress and says goodbye;
// without, it dies on the spot, and recovers when it starts again.
func (s *Server) Stop(fast bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	if fast {
		s.process.end(syscall.SIGINT)
	} else {
		s.process.end(syscall.SIGQUIT)
	}
	s.process = nil
}

// Close ends all and removes the cluster.
func (s *Server) Close() error {
	if s.bouncer != nil {
		s.bouncer.end(syscall.SIGTERM)
	}
	s.Stop(true)
	return os.RemoveAll(s.dir)
}

// StartBouncer starts pgbouncer, which pools transactions on 8 connections, and returns
// the address of the database behind it.
func (s *Server) StartBouncer(ctx context.Context) (string, error) {
	name, err := find("pgbouncer", "/usr/sbin", "/usr/local/sbin")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(s.dir, "b")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if s.cred != nil {
		if err := os.Chown(dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return "", err
		}
	}
	config := fmt.Sprintf(`
[databases]
* = host=%s user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = %s
auth_type = any
pool_mode = transaction
default_pool_size = 8
max_client_conn = 2000
server_login_retry = 1
`, s.dir, dir)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return "", err
	}
	p, err := start(s.command(context.WithoutCancel(ctx), name, "-q", file))
	if err != nil {
		return "", err
	}
	if err := p.ready(ctx, socket(dir, portBouncer)); err != nil {
		p.end(syscall.SIGTERM)
		return "", err
	}
	s.bouncer = p
	return address(dir, portBouncer), nil
}

// A process is one that was started here.
type process struct {
	cmd   *exec.Cmd
	log   *buffer
	ended chan struct{}
}

func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, log: &buffer{}, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.WaitDelay = time.Second
	started := make(chan error)
	go func() {
		// "The parent" whose death sends a signal is the thread that started the process
		// (prctl(2), PR_SET_PDEATHSIG), so that thread must not end before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// ready waits until a session can be opened.
func (p *process) ready(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := connect(ctx, socket)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s has ended:\n%s", filepath.Base(p.cmd.Path), p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s does not come up: %w\n%s", filepath.Base(p.cmd.Path), err, p.log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// connect opens a session as the user postgres, and ends it. It is written out, so that this
// package needs no driver, and so the modules that use it need not agree on one.
// PostgreSQL, "Frontend/Backend Protocol: Message Flow, Start-up".
func connect(ctx context.Context, socket string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	const version = 3 << 16
	parameters := "user\x00postgres\x00database\x00postgres\x00\x00"
	startup := binary.BigEndian.AppendUint32(nil, uint32(8+len(parameters)))
	startup = binary.BigEndian.AppendUint32(startup, version)
	if _, err := conn.Write(append(startup, parameters...)); err != nil {
		return err
	}
	for in := bufio.NewReader(conn); ; {
		var head [5]byte // the kind of a message, and its length without the kind
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		body := make([]byte, max(int(binary.BigEndian.Uint32(head[1:]))-4, 0))
		if _, err := io.ReadFull(in, body); err != nil {
			return err
		}
		switch head[0] {
		case 'E': // ErrorResponse
			return fmt.Errorf("%q", body)
		case 'Z': // ReadyForQuery
			_, err := conn.Write([]byte{'X', 0, 0, 0, 4}) // Terminate
			return err
		}
	}
}

func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// A buffer keeps the end of a log.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.b.Len() > 1<<20 {
		b.b.Reset()
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.TrimSpace(b.b.String())
}
