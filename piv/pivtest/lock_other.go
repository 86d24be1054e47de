//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package pivtest

import (
	"context"
	"errors"
	"fmt"
)

func lockFile(context.Context, string) (unlock func(), err error) {
	return nil, fmt.Errorf("no virtual readers on this system: %w", errors.ErrUnsupported)
}
