package refreshtoken

import (
	"fmt"
	"log/slog"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// Secret carries a refresh token to a [Transport]. No verb of fmt, no JSON and
// no slog handler prints it. The zero Secret is empty.
type Secret struct {
	// A closure, because printers that walk values by reflection look into
	// unexported fields and through pointers, but not into a function.
	value func() string
}

func newSecret(s string) Secret { return Secret{func() string { return s }} }

// Reveal returns the secret itself.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return s.value()
}

// String is "REDACTED", or "" for an empty secret.
func (s Secret) String() string {
	if s.Reveal() == "" {
		return ""
	}
	return redact.Mark
}

// Format prints [Secret.String] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalText is [Secret.String], for JSON and other encodings.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is [Secret.String], for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
