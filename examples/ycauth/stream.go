package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/term"
)

// A stream is stdout or stderr. Everything that the program writes passes through
// it: what a terminal would obey, or what changes how a line reads, is taken out
// here, because texts of servers, certificates and files are among it. Colors and
// the like are added behind that, by the stream itself.
type stream struct {
	w      io.Writer
	colors bool // it is a terminal that has colors, and its user wants them
	smart  bool // it is a terminal that can clear a line

	mu  sync.Mutex
	err error // the first one
}

func newStream(w io.Writer, getenv func(string) string) *stream {
	smart := isTerminal(w) && getenv("TERM") != "dumb"
	return &stream{w: w, smart: smart, colors: smart && getenv("NO_COLOR") == ""} // no-color.org
}

// A color is a graphic rendition (ECMA-48, SGR).
type color string

const (
	plain  color = ""
	bold   color = "1"
	red    color = "31"
	green  color = "32"
	yellow color = "33"
)

// A span is text in one color.
type span struct {
	text  string
	color color
}

// Write writes text, which may have several lines. It always takes all of it: what
// went wrong is in err, for the end of the program.
func (s *stream) Write(p []byte) (int, error) {
	return len(p), s.raw(clean(string(p)))
}

// print writes spans of one or several lines.
func (s *stream) print(spans ...span) error {
	var b strings.Builder
	for _, sp := range spans {
		text := clean(sp.text)
		if s.colors && sp.color != plain && text != "" {
			text = "\x1b[" + string(sp.color) + "m" + text + "\x1b[0m"
		}
		b.WriteString(text)
	}
	return s.raw(b.String())
}

// transient shows a line that the next one replaces, on terminals that can do so.
func (s *stream) transient(format string, args ...any) {
	if s.smart {
		_ = s.raw("\r\x1b[K" + clean(linef(format, args...))) // err keeps it
	}
}

// raw writes what is fit for a terminal.
func (s *stream) raw(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := io.WriteString(s.w, text)
	if s.err == nil {
		s.err = err
	}
	return err
}

// failed is the first error of a write.
func (s *stream) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// width is that of the terminal, in columns; 0 if it is none, or does not tell.
func (s *stream) width() int {
	f, ok := s.w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// isTerminal reports whether a stream of the program is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// obeyed reports whether a terminal would act on the character instead of showing
// it: the control characters C0, DEL and C1, what separates lines and paragraphs,
// and what changes the direction of writing.
func obeyed(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// hidden reports whether the character shows nothing, so that two texts look the same
// which are not: zero-width ones, and the tags U+E0000 to U+E0FFF. The format characters
// of Unicode that show a sign are none of them.
func hidden(r rune) bool {
	return unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Prepended_Concatenation_Mark, r) && !obeyed(r) || 0xE0000 <= r && r <= 0xE0FFF
}

// shown is a text without what is hidden.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		if hidden(r) {
			return -1
		}
		return r
	}, s)
}

// clean makes a text of several lines fit for a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if obeyed(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// line makes a text fit for being a part of a line: nobody forges another one.
func line(s string) string {
	return strings.Join(strings.FieldsFunc(clean(s), func(r rune) bool { return r == '\n' || r == '\t' }), " ")
}

// linef is fmt.Sprintf with arguments that stay within their line.
func linef(format string, args ...any) string {
	safe := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			safe[i] = line(v)
		case error:
			safe[i] = line(v.Error())
		case fmt.Stringer:
			safe[i] = line(v.String())
		default:
			safe[i] = arg
		}
	}
	return fmt.Sprintf(format, safe...)
}
