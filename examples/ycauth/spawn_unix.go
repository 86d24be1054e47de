//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spawn runs the command as a child in this process group, with this program's terminal
// and standard streams, and waits for it. The child must not have a group of its own: a
// pager at the other end of a pipe would lose the terminal to it.
//
//	signal                    | what this program does
//	--------------------------+---------------------------------------------------------
//	SIGINT, SIGQUIT, SIGTSTP  | in the foreground of a terminal nothing, because the whole
//	                          | group gets what is typed; elsewhere it is passed on
//	SIGTERM, SIGHUP, SIGUSR1, | it is passed on
//	SIGUSR2                   |
//	the child stops           | in the foreground this program stops, too, for the shell
//	                          | to see; when it goes on, so does the child
//	this program is killed    | the child gets SIGTERM, where the kernel can do that
//
// The error says how the child ended.
func (a *app) spawn(path string, args, env []string) error {
	//nolint:noctx // the command decides how it ends
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = childAttributes()
	// The signal for the death of the parent is one for that of the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	started := make(chan struct{})
	a.signals.delegate(func(sig os.Signal) {
		<-started
		if cmd.Process == nil || typed(sig) && foreground() {
			return
		}
		_ = cmd.Process.Signal(sig) // if it has ended, it needs none
	}, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer a.signals.delegate(nil)
	err := a.signals.ctx.Err()
	if err == nil {
		err = cmd.Start()
	}
	close(started)
	if err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Release() }() // it has been waited for
	for flags := syscall.WUNTRACED; ; {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(cmd.Process.Pid, &status, flags, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("wait4", err)
		case pid == 0: // nothing happened since it stopped
			stopWith(cmd.Process)
		case status.Stopped() && foreground():
			// The group may be told to go on at this moment, the child after this process.
			time.Sleep(50 * time.Millisecond)
			flags = syscall.WUNTRACED | unix.WCONTINUED | syscall.WNOHANG
			continue
		case status.Signaled():
			return signaledError{status.Signal(), 128 + int(status.Signal())} // as shells have it
		case status.Exited() && status.ExitStatus() == 0:
			return nil
		case status.Exited():
			return codedError{code: status.ExitStatus()}
		}
		flags = syscall.WUNTRACED
	}
}

// typed reports whether a signal can come from the keyboard.
func typed(sig os.Signal) bool {
	return slices.Contains([]os.Signal{os.Interrupt, syscall.SIGQUIT, syscall.SIGTSTP}, sig)
}

// foreground reports whether this process is in the group that gets what is typed.
func foreground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == syscall.Getpgrp()
}

// stopWith stops this program with its child, for the shell to see that the job has
// stopped, and has both go on together.
func stopWith(child *os.Process) {
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // always possible
	_ = child.Signal(syscall.SIGCONT)
}

// dieOf ends this program as its command ended, so that a shell breaks off its script after
// Ctrl-C. It returns if the signal would leave a core dump with tokens, or ends nothing.
func dieOf(sig os.Signal) {
	s, ok := sig.(syscall.Signal)
	if !ok || !slices.Contains([]syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE}, s) || signal.Ignored(s) {
		return
	}
	signal.Reset(s)
	_ = syscall.Kill(os.Getpid(), s)
	time.Sleep(time.Second) // another thread may get it
}
