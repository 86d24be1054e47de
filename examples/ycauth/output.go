package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// Output formats.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// A colour is a graphic rendition (ECMA-48, SGR).
type colour string

const (
	plain  colour = ""
	bold   colour = "1"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// paint colours text for a stream that is a terminal, unless NO_COLOR is set
// (no-color.org) or the terminal is dumb.
func (a *app) paint(stream io.Writer, c colour, text string) string {
	if c == plain || a.getenv("NO_COLOR") != "" || a.getenv("TERM") == "dumb" || !isTerminal(stream) {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// cell is one field of a table. Its text can be a server's: what a terminal
// would obey is taken out.
type cell struct {
	text   string
	colour colour
}

func text(s string) cell { return cell{text: s} }

// at is a time in a table.
func at(t time.Time) cell {
	if t.IsZero() {
		return cell{text: "-"}
	}
	return cell{text: t.UTC().Format(time.RFC3339)}
}

// printTable prints columns that line up, two spaces apart.
func (a *app) printTable(header []string, rows [][]cell) error {
	lines := make([][]cell, 0, len(rows)+1)
	if header != nil {
		line := make([]cell, len(header))
		for i, h := range header {
			line[i] = cell{h, bold}
		}
		lines = append(lines, line)
	}
	lines = append(lines, rows...)
	var widths []int
	for _, line := range lines {
		for i := range line {
			line[i].text = redact.Text(line[i].text)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(line[i].text))
		}
	}
	var b strings.Builder
	for _, line := range lines {
		for i, c := range line {
			b.WriteString(a.paint(a.stdout, c.colour, c.text))
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(a.stdout, b.String())
	return err
}

// printFields prints names and values, and leaves out what is empty.
func (a *app) printFields(fields [][2]string) error {
	var rows [][]cell
	for _, f := range fields {
		if f[1] != "" {
			rows = append(rows, []cell{{f[0], bold}, text(f[1])})
		}
	}
	return a.printTable(nil, rows)
}

func (a *app) printJSON(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", data)
	return err
}
