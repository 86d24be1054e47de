//go:build linux || freebsd

package main

import "syscall"

// childAttributes have the child end when this program is killed, unless it changes its user.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
