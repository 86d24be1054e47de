//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// detach keeps the terminal's Ctrl-C and hang-up from a program.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
