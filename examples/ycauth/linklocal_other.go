//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// addLinkLocal is for Linux: on other systems nothing tells who connects to the address.
func (a *app) addLinkLocal(context.Context) (remove func(), err error) {
	hint := fmt.Sprintf("Use %q.", a.commandFor("run -- COMMAND"))
	if runtime.GOOS == "darwin" {
		hint = fmt.Sprintf("An administrator can add the address: sudo ifconfig lo0 alias %s. Then %q serves every user of this computer.",
			linkLocal, a.commandFor("serve --exposed --address "+linkLocalAddress))
	}
	return nil, hintError{usageError{errors.New("--link-local is for Linux")}, hint}
}
