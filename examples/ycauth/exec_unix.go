//go:build unix

package main

import "syscall"

// execute turns this process into the command: exit code, signals, terminal and
// standard streams are its own from then on. It returns only if that fails, or if
// the user does not want to go on.
func (a *app) execute(path string, args, env []string) error {
	// What is not ignored gets its default again: the command inherits no handler.
	a.signals.stop()
	if err := a.signals.ctx.Err(); err != nil {
		return err
	}
	return syscall.Exec(path, args, env)
}
