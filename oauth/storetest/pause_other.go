//go:build !unix

package storetest

import "os"

// A process that is told nothing waits in fn as well.
func pause(*os.Process)  {}
func resume(*os.Process) {}
