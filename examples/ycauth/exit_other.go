//go:build !unix && !windows

package main

import "syscall"

// errAddressInUse is the error of a port that another program listens on.
const errAddressInUse = syscall.EADDRINUSE

// passingErrnos are failures of connections that pass.
var passingErrnos = []syscall.Errno{}
