package oauth

import "fmt"

// What Secret's own methods cannot do: package fmt does not call them on what lies behind
// a pointer in a structure, if the verb does not fit a pointer. It does call those of the
// pointer.

type (
	session = Session
	config  = Config
)

// Format implements [fmt.Formatter] for every verb but %p and %w, for which package fmt
// does not call it. It leaves out what this release does not know.
func (s Session) Format(f fmt.State, verb rune) {
	type Session session // without methods
	s.extra = nil
	fmt.Fprintf(f, fmt.FormatString(f, verb), Session(s))
}

// Format implements [fmt.Formatter] for every verb but %p and %w, for which package fmt
// does not call it.
func (c Config) Format(f fmt.State, verb rune) {
	type Config config // without methods
	fmt.Fprintf(f, fmt.FormatString(f, verb), Config(c))
}
