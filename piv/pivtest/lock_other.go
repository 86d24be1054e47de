//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package pivtest

import (
	"context"
	"errors"
	"fmt"
	"os"
)

func lockFile(context.Context, string) (*os.File, error) {
	return nil, fmt.Errorf("no virtual readers on this system: %w", errors.ErrUnsupported)
}
