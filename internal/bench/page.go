package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A plot is drawn from tables of the page, so that a picture never shows another run
// than the table beside it.
type plot struct {
	file, title string
	section     string   // of the page; the picture comes first in it
	series      []series // one mark each in every row
	unit        string   // of the axis
	log         bool     // a logarithmic axis
	base        float64  // what marks begin at; on a logarithmic axis 0 is its left end
}

// A series is a column of the table in a section.
type series struct{ name, section, column string }

func plots() []plot {
	const (
		one   = "A fresh token, goroutines on each core: 1"
		many  = "A fresh token, goroutines on each core: 32"
		proof = "A DPoP proof, ES256"
		list  = "100,000 refresh tokens in 100 pages"
		heap  = "Memory of a listing, by its pages"
		size  = "A program that renews one token"
		kill  = "A process is killed while it renews"
	)
	return []plot{
		{"bench-token.svg", "A fresh token: time, as a multiple of the floor", one, []series{{"1 goroutine on each core", one, "ratio"}, {"32 goroutines on each core", many, "ratio"}}, "×", true, 1},
		{"bench-proof.svg", "A DPoP proof: time, as a multiple of the signature", proof, []series{{"", proof, "ratio"}}, "×", false, 0},
		{"bench-list.svg", "100,000 refresh tokens: time, as a multiple of the official SDK's", list, []series{{"", list, "ratio"}}, "×", false, 0},
		{"bench-memory.svg", "Live memory while a listing runs", heap, []series{{"10 pages", heap, "10 pages"}, {"100 pages", heap, "100 pages"}}, "KiB", false, 0},
		{"bench-size.svg", "A program that renews one token: its size", size, []series{{"as built", size, "MB"}, {"stripped", size, "MB, stripped"}}, "MB", false, 0},
		{"bench-kill.svg", "After the response with a new refresh token: when a kill cannot lose it any more", kill, []series{{"survives SIGKILL", kill, "survives SIGKILL"}, {"durable", kill, "durable"}}, "ms", true, 0},
	}
}

// write puts the page and its plots into dir.
func write(dir, page string) error {
	for _, p := range plots() {
		c, err := p.chart(page)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s is not drawn: %v\n", p.file, err)
			continue
		}
		if err := replace(filepath.Join(dir, p.file), c.svg()); err != nil {
			return err
		}
		heading := "\n## " + p.section + "\n"
		page = strings.Replace(page, heading+"\n", fmt.Sprintf("%s\n![%s](%s)\n\n", heading, p.title, p.file), 1)
	}
	return replace(filepath.Join(dir, "BENCHMARKS.md"), []byte(page))
}

// readPage returns what was measured, without the pictures.
func readPage(dir string) (string, error) {
	page, err := os.ReadFile(filepath.Join(dir, "BENCHMARKS.md"))
	return picture.ReplaceAllString(string(page), ""), err
}

var picture = regexp.MustCompile(`!\[[^\]]*\]\(bench-[a-z]+\.svg\)\n\n`)

// replace writes a file beside the old one first. The old one stays whole if that
// fails, and whatever a shell has redirected into it does not count.
func replace(file string, content []byte) error {
	if err := os.WriteFile(file+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func (p plot) chart(page string) (chart, error) {
	c := chart{title: p.title, unit: p.unit, log: p.log, base: p.base}
	for i, s := range p.series {
		t, err := parseTable(page, s.section)
		if err != nil {
			return c, err
		}
		column := slices.Index(t[0], s.column)
		if column < 1 {
			return c, fmt.Errorf("the table under %q has no column %q", s.section, s.column)
		}
		if i == 0 {
			c.rows = make([]row, len(t)-1)
		}
		if len(c.rows) != len(t)-1 {
			return c, fmt.Errorf("the tables under %q and %q have not the same rows", p.series[0].section, s.section)
		}
		c.series = append(c.series, s.name)
		for j, cells := range t[1:] {
			v, err := parseValue(cells[column])
			if err != nil {
				return c, fmt.Errorf("%q under %q: %w", cells[column], s.section, err)
			}
			c.rows[j].ours = strings.Contains(cells[0], "**")
			c.rows[j].label = strings.NewReplacer("**", "", "`", "").Replace(cells[0])
			c.rows[j].values = append(c.rows[j].values, v)
			c.rows[j].texts = append(c.rows[j].texts, cells[column])
		}
	}
	return c, nil
}

// parseTable returns the cells of the first table under a heading, its own headings
// first.
func parseTable(page, section string) ([][]string, error) {
	_, text, ok := strings.Cut(page, "\n## "+section+"\n")
	if !ok {
		return nil, fmt.Errorf("the page has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var rows [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if rows != nil {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if strings.HasPrefix(cells[0], "---") {
			continue
		}
		if rows != nil && len(cells) != len(rows[0]) {
			return nil, fmt.Errorf("a row under %q has %d cells, its table has %d columns", section, len(cells), len(rows[0]))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 2 {
		return nil, fmt.Errorf("there is no table under %q", section)
	}
	return rows, nil
}

// parseValue is a number, or a duration in milliseconds.
func parseValue(s string) (float64, error) {
	if v, err := strconv.ParseFloat(s, 64); err == nil {
		return v, nil
	}
	d, err := time.ParseDuration(s)
	return float64(d) / 1e6, err
}

// capture returns what fn prints on standard output.
func capture(fn func()) (string, error) {
	f, err := os.CreateTemp("", "ycauth-bench-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	stdout := os.Stdout
	os.Stdout = f
	fn()
	os.Stdout = stdout
	content, err := os.ReadFile(f.Name())
	return string(bytes.TrimSpace(content)) + "\n", err
}
