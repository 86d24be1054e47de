package oauth

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// A Secret is a token, a password or another credential. Printing one with any
// verb of package fmt, encoding it with encoding/json or logging it with slog
// yields "REDACTED" instead of the credential (and "" for an empty one), so that
// whole structures can be logged without thought.
//
// Four things are out of a type's reach: fmt reads unexported fields of somebody
// else's structure by reflection; formats the mistake %p (which go vet reports) without
// asking the value; does not ask what lies behind a pointer in a structure either, if the
// verb does not fit a pointer, such as %s; and encoding/json writes the keys of a map as
// they are.
type Secret string

// Reveal returns the credential itself. It is the one way out, easy to search
// for.
func (s Secret) Reveal() string { return string(s) }

// String implements [fmt.Stringer], with the mark in the credential's place.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redact.Mark
}

// Format implements [fmt.Formatter] for every verb, %x, %q and %#v included.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || (verb == 'v' && f.Flag('#')) {
		fmt.Fprintf(f, "%q", s.String())
		return
	}
	_, _ = io.WriteString(f, s.String())
}

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText implements [encoding.TextMarshaler], and so the encoding of JSON,
// XML and YAML packages, with the mark in the credential's place. A session is
// written by [Session.Encode].
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
