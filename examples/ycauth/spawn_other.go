//go:build !unix

package main

import (
	"errors"
	"os"
	"os/exec"
)

// spawn runs the command as a child and waits for it. The console sends every Ctrl-C to
// both programs; this one waits for the other, however many come.
func (a *app) spawn(path string, args, env []string) error {
	//nolint:noctx // the command decides how it ends
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	a.signals.delegate(func(os.Signal) {})
	defer a.signals.delegate(nil)
	if err := a.signals.ctx.Err(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	release := endTogether(cmd.Process)
	defer release()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return codedError{code: exit.ExitCode()}
	}
	return err
}

// dieOf is for systems on which signals end processes.
func dieOf(os.Signal) {}
