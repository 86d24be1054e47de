package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPlotsAreOfThePage draws the plots in docs once more: a picture and the table
// beside it are of one run.
func TestPlotsAreOfThePage(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	page, err := os.ReadFile(filepath.Join(docs, "BENCHMARKS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plots() {
		t.Run(p.file, func(t *testing.T) {
			c, err := p.chart(string(page))
			if err != nil {
				t.Fatal(err)
			}
			drawn, err := os.ReadFile(filepath.Join(docs, p.file))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(drawn, c.svg()) {
				t.Errorf("docs/%s is not of docs/BENCHMARKS.md: write both with \"go run .\"", p.file)
			}
			if !strings.Contains(string(page), "]("+p.file+")") {
				t.Errorf("docs/BENCHMARKS.md does not show %s", p.file)
			}
		})
	}
	for _, measuredApart := range []string{kills, cards} {
		_, rows, ok := strings.Cut(measuredApart, "\n| ")
		if !ok || !strings.Contains(string(page), rows) {
			t.Errorf("docs/BENCHMARKS.md lacks what is measured apart:\n%s", measuredApart)
		}
	}
}

const samplePage = `# Benchmarks

## First

Text.

| | ns/op | ratio |
| --- | ---: | ---: |
| floor: ` + "`a < b`" + ` | 10 | 1.00 |
| **ycauth-go** x | 20.5 | 2.05 |

## Second

| | kept | sent |
| --- | ---: | ---: |
| **ours** | 310µs | 2.5ms |
| theirs | 1.5s | 70ms |
`

func TestChart(t *testing.T) {
	c, err := plot{title: "a & b", series: []series{{"", "First", "ratio"}}, unit: "×", log: true, base: 1}.chart(samplePage)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.rows) != 2 || c.rows[0].label != "floor: a < b" || c.rows[0].ours || !c.rows[1].ours || c.rows[1].values[0] != 2.05 || c.rows[1].texts[0] != "2.05" {
		t.Errorf("got %+v", c.rows)
	}
	svg := string(c.svg())
	for _, want := range []string{"a &amp; b", "floor: a &lt; b", ">2.05</text>", ">1×</text>"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in\n%s", want, svg)
		}
	}
	wellFormed(t, svg)

	c, err = plot{series: []series{{"kept", "Second", "kept"}, {"sent", "Second", "sent"}}, unit: "ms", log: true}.chart(samplePage)
	if err != nil {
		t.Fatal(err)
	}
	if c.rows[0].values[0] != 0.31 || c.rows[1].values[0] != 1500 || c.rows[1].values[1] != 70 {
		t.Errorf("got %+v", c.rows)
	}
	wellFormed(t, string(c.svg()))
}

func TestChartMistakes(t *testing.T) {
	for want, s := range map[string][]series{
		"no section":     {{"", "Third", "x"}},
		"no column":      {{"", "First", "MB"}},
		"has no column ": {{"", "First", ""}},
		"not the same":   {{"", "First", "ratio"}, {"", "Third", "ratio"}},
		"invalid":        {{"", "Third", "text"}},
	} {
		page := samplePage
		if want == "not the same" || want == "invalid" {
			page += "\n## Third\n\n| | ratio | text |\n| --- | --- | --- |\n| x | 1 | no number |\n"
		}
		if _, err := (plot{series: s}).chart(page); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestAxes: every value is between the first and the last line.
func TestAxes(t *testing.T) {
	for _, values := range [][]float64{{1}, {0.56, 1.14}, {1, 13.69}, {7.1, 20.8}, {259, 520}, {0.02, 900}, {100, 100}, {0, 3}, {0}} {
		for _, log := range []bool{false, true} {
			c := chart{log: log, rows: []row{{values: values}}}
			at, ticks := c.axis()
			if len(ticks) < 2 || len(ticks) > 16 {
				t.Errorf("%v, log %v: the lines are %v", values, log, ticks)
			}
			for _, v := range values {
				if x := at(v); x < plotLeft-0.01 || x > plotRight+0.01 {
					t.Errorf("%v, log %v: %v is at %v", values, log, v, x)
				}
			}
		}
	}
}

// TestWrite: the page shows its plots, and a plot without a table costs only itself.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	page := strings.Replace(samplePage, "## First", "## A DPoP proof, ES256", 1)
	if err := write(dir, page); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(dir, "BENCHMARKS.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(written), "## A DPoP proof, ES256\n\n![A DPoP proof: time, as a multiple of the signature](bench-proof.svg)\n\nText.") {
		t.Errorf("got\n%s", written)
	}
	if again, err := readPage(dir); err != nil || again != page {
		t.Errorf("without its pictures the page is another one: %v\n%s", err, again)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("%v, %v", files, err)
	}
}

func wellFormed(t *testing.T, svg string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
}
