//go:build unix

package main

import "syscall"

// errAddressInUse is the error of a port that another program listens on.
const errAddressInUse = syscall.EADDRINUSE

// passingErrnos are failures of connections that pass.
var passingErrnos = []syscall.Errno{
	syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
	syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENETRESET,
}
