//go:build unix && !linux && !freebsd

package main

import "syscall"

// childAttributes are none: this system has no signal for the death of the parent.
func childAttributes() *syscall.SysProcAttr { return nil }
