//go:build !unix

package main

import (
	"errors"
	"os"
	"os/exec"
)

// execute runs the command and gives its exit code. The console sends every
// Ctrl-C to both programs; this one waits for the other, however many come.
func (a *app) execute(path string, args, env []string) error {
	//nolint:noctx // the command decides how it ends
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	a.signals.mu.Lock()
	a.signals.child = true
	a.signals.mu.Unlock()
	if err := a.signals.ctx.Err(); err != nil {
		return err
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return codedError{code: exit.ExitCode()}
	}
	return err
}
