package etcdtest

import "syscall"

// attributes make a server end with the test, whatever way that ends.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
