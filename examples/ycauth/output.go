package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// Output formats.
const (
	outputTable = "table"
	outputJSON  = "json"
)

func text(s string) span { return span{text: s} }

// at is a time in a table, in the user's zone.
func at(t time.Time) span {
	if t.IsZero() {
		return span{text: "-"}
	}
	return span{text: t.Local().Format("2006-01-02 15:04")}
}

// when is a time in a sentence, in the user's zone, and how far away it is.
func (a *app) when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04 MST") + " (" + distance(t.Sub(a.now())) + ")"
}

// distance says how far away a time is, rounded towards now.
func distance(d time.Duration) string {
	text := roughly(d.Abs())
	if d < 0 {
		return text + " ago"
	}
	return "in " + text
}

// roughly is a positive duration in its largest unit, rounded down.
func roughly(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// printTable prints columns that line up, two spaces apart, or on a terminal that
// is too narrow for them one field to a line.
func (a *app) printTable(header []string, rows [][]span) error {
	var widths []int
	measure := func(i int, text string) {
		if i == len(widths) {
			widths = append(widths, 0)
		}
		widths[i] = max(widths[i], utf8.RuneCountInString(text))
	}
	for i, h := range header {
		measure(i, h)
	}
	for _, row := range rows {
		for i := range row {
			row[i].text = shown(redact.Text(row[i].text))
			measure(i, row[i].text)
		}
	}
	whole := -2
	for _, w := range widths {
		whole += w + 2
	}
	if width := a.stdout.width(); header != nil && width > 0 && whole > width {
		return a.printRecords(header, rows)
	}
	var lines [][]span
	if header != nil {
		names := make([]span, len(header))
		for i, h := range header {
			names[i] = span{h, bold}
		}
		lines = append(lines, names)
	}
	var out []span
	for _, line := range append(lines, rows...) {
		for i, c := range line {
			out = append(out, c)
			if i < len(line)-1 {
				out = append(out, text(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2)))
			}
		}
		out = append(out, text("\n"))
	}
	return a.stdout.print(out...)
}

// printRecords prints the rows one below the other, with an empty line between.
func (a *app) printRecords(header []string, rows [][]span) error {
	widest := 0
	for _, h := range header {
		widest = max(widest, utf8.RuneCountInString(h))
	}
	var out []span
	for i, row := range rows {
		if i > 0 {
			out = append(out, text("\n"))
		}
		for j, c := range row {
			out = append(out, span{header[j], bold}, text(strings.Repeat(" ", widest-utf8.RuneCountInString(header[j])+2)), c, text("\n"))
		}
	}
	return a.stdout.print(out...)
}

// printFields prints names and values, and leaves out what is empty.
func (a *app) printFields(fields [][2]string) error {
	var rows [][]span
	for _, f := range fields {
		if f[1] != "" {
			rows = append(rows, []span{{f[0], bold}, text(f[1])})
		}
	}
	return a.printTable(nil, rows)
}

// printJSON prints a value. The strings in it are whole: what a terminal would
// obey or not show is escaped, which RFC 8259 §7 allows for every character.
func (a *app) printJSON(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range string(data) {
		if (obeyed(r) || hidden(r)) && r != '\n' {
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
			continue
		}
		b.WriteRune(r)
	}
	return a.stdout.print(text(b.String() + "\n"))
}

// say tells the user something, on stderr. The arguments stay within their line.
func (a *app) say(format string, args ...any) {
	_ = a.stderr.print(text(linef(format, args...) + "\n")) // there is nowhere else to say it
}

func (a *app) warn(format string, args ...any) { a.note(yellow, "warning:", format, args...) }

// note is say behind a word in a color.
func (a *app) note(c color, word, format string, args ...any) {
	_ = a.stderr.print(span{word, c}, text(" "+linef(format, args...)+"\n")) // as in say
}
