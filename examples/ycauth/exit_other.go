//go:build !unix && !windows

package main

import "syscall"

// addressInUse is the error of a port that another program listens on.
const addressInUse = syscall.EADDRINUSE

// passingErrnos are failures of connections that pass.
var passingErrnos = []syscall.Errno{}
