//go:build unix

package main

import "syscall"

// execute turns this process into the command: exit code, signals, terminal and
// standard streams are its own from then on. It returns only if that fails.
func execute(path string, args, env []string) error { return syscall.Exec(path, args, env) }
