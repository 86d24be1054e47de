//go:build !cgo && !windows

package piv_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/piv"
)

func TestWithoutCgo(t *testing.T) {
	_, openErr := piv.Open(t.Context(), piv.Options{})
	_, generateErr := piv.Generate(t.Context(), piv.Options{Serial: 1}, piv.KeySpec{})
	_, cardsErr := piv.Cards(t.Context())
	for name, err := range map[string]error{"Open": openErr, "Generate": generateErr, "Cards": cardsErr} {
		if !errors.Is(err, piv.ErrUnsupported) || !strings.Contains(err.Error(), "CGO_ENABLED=1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
