//go:build !linux

package main

import (
	"context"
	"errors"
	"runtime"
)

// addLinkLocal is for Linux: on other systems nothing tells who connects to the address.
func (a *app) addLinkLocal(context.Context) (remove func(), err error) {
	hint := "Use \"ycauth run\"."
	if runtime.GOOS == "darwin" {
		hint = "An administrator can add the address, with \"sudo ifconfig lo0 alias " + linkLocal + "\", and \"sudo ycauth serve --exposed --address " + linkLocalAddress + "\" then serves every user of this computer."
	}
	return nil, hintError{usageError{errors.New("--link-local is for Linux")}, hint}
}
