package oauth

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// A Secret is a token, a password or another credential. Printing one with a
// verb of package fmt other than %p, encoding it with encoding/json or logging it with
// slog yields "REDACTED" (or "" for an empty one), so that
// whole structs can be logged safely.
//
// Five cases bypass a type's methods: fmt reads unexported fields of other
// packages' structs by reflection; it formats the mistake %p without calling them, which
// go vet does not report for a type with a Format method; the same for %w, which go vet
// reports; it does not call them for a value behind a pointer in a struct,
// if the verb does not fit a pointer, such as %s; and encoding/json writes map keys
// unchanged.
type Secret string

// Reveal returns the credential itself.
func (s Secret) Reveal() string { return string(s) }

// String implements [fmt.Stringer]. It returns "REDACTED" instead of the credential.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redact.Mark
}

// Format implements [fmt.Formatter] for every verb, %x, %q and %#v included. Package fmt
// does not call it for %p and %w.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || (verb == 'v' && f.Flag('#')) {
		fmt.Fprintf(f, "%q", s.String())
		return
	}
	_, _ = io.WriteString(f, s.String())
}

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText implements [encoding.TextMarshaler], which JSON, XML and YAML packages
// use. It returns "REDACTED" instead of the credential. To write a session, use
// [Session.Encode].
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
