//go:build !linux

package pivtest

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
