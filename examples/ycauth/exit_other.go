//go:build !unix && !windows

package main

import "syscall"

// passingErrnos are failures of connections that pass.
var passingErrnos = []syscall.Errno{}
