package main

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A chart has a row for each candidate and a mark in it for each series: a bar from
// zero, or on a logarithmic axis, where no bar begins at zero, a dot on a stem.
type chart struct {
	title, unit string
	series      []string // "" where one is all there is
	rows        []row
	log         bool
	base        float64
}

type row struct {
	label  string
	ours   bool
	values []float64
	texts  []string // the values as the table has them
}

// Measures of a chart, in pixels.
const (
	chartWidth = 860
	plotLeft   = 330
	plotRight  = 790
	markHeight = 16
	rowGap     = 10
	headHeight = 44
)

// Both colour schemes have a background of their own: a site may show a picture on
// any other. A reader sees the series apart by shade, and the SDK apart by hue.
const chartStyle = `.bg{fill:#fff}.t{font:12px system-ui,sans-serif;fill:#1f2933}.b{font-weight:600}.r{text-anchor:end}.c{text-anchor:middle}.m{fill:#52606d}.grid{stroke:#d9dee4}.zero{stroke:#7b8794}.o0{fill:#2f6fd0;stroke:#2f6fd0}.o1{fill:#9dc0f2;stroke:#9dc0f2}.p0{fill:#7b8794;stroke:#7b8794}.p1{fill:#c3cad2;stroke:#c3cad2}.stem{stroke-width:3}
@media (prefers-color-scheme:dark){.bg{fill:#0d1117}.t{fill:#e6edf3}.m{fill:#9198a1}.grid{stroke:#2a313a}.zero{stroke:#9198a1}.o0{fill:#5b9bf5;stroke:#5b9bf5}.o1{fill:#2b5696;stroke:#2b5696}.p0{fill:#9198a1;stroke:#9198a1}.p1{fill:#4b535d;stroke:#4b535d}}`

func (c chart) svg() []byte {
	rowHeight := len(c.series)*markHeight + rowGap
	top := headHeight
	if len(c.series) > 1 {
		top += 22
	}
	bottom := top + len(c.rows)*rowHeight
	var b bytes.Buffer
	print := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	print(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%d" role="img" aria-labelledby="title">`, chartWidth, bottom+34, bottom+34)
	print(`<title id="title">%s</title>`, escape(c.title))
	print(`<style>%s</style>`, chartStyle)
	print(`<rect class="bg" width="%d" height="%d"/>`, chartWidth, bottom+34)
	print(`<text class="t b" x="16" y="26">%s</text>`, escape(c.title))
	if len(c.series) > 1 {
		x := plotLeft
		for i, name := range c.series {
			print(`<rect class="o%d" x="%d" y="42" width="10" height="10"/>`, i, x)
			print(`<rect class="p%d" x="%d" y="42" width="10" height="10"/>`, i, x+12)
			print(`<text class="t m" x="%d" y="52">%s</text>`, x+28, escape(name))
			x += 60 + 7*len(name)
		}
	}
	at, ticks := c.axis()
	for _, v := range ticks {
		class := "grid"
		if v == c.base {
			class = "zero"
		}
		x := pixels(at(v))
		print(`<line class="%s" x1="%s" y1="%d" x2="%s" y2="%d"/>`, class, x, top, x, bottom)
		print(`<text class="t m c" x="%s" y="%d">%s</text>`, x, bottom+18, escape(short(v)+c.gap()+c.unit))
	}
	for i, r := range c.rows {
		y := top + i*rowHeight + rowGap/2
		weight, hue := "", "p"
		if r.ours {
			weight, hue = " b", "o"
		}
		print(`<text class="t r%s" x="%d" y="%d">%s</text>`, weight, plotLeft-10, y+len(r.values)*markHeight/2+4, escape(r.label))
		for j, v := range r.values {
			c.mark(print, at, at(v), y+j*markHeight, fmt.Sprintf("%s%d", hue, j))
			print(`<text class="t%s" x="%s" y="%d">%s</text>`, weight, pixels(max(at(v), at(c.base))+10), y+j*markHeight+markHeight/2+4, escape(r.texts[j]))
		}
	}
	print(`</svg>`)
	return b.Bytes()
}

// mark draws a value that is at x, in the line that begins at y.
func (c chart) mark(print func(string, ...any), at func(float64) float64, x float64, y int, class string) {
	from := at(c.base)
	if !c.log {
		print(`<rect class="%s" x="%s" y="%d" width="%s" height="%d"/>`, class, pixels(from), y+2, pixels(x-from), markHeight-4)
		return
	}
	print(`<line class="%s stem" x1="%s" y1="%d" x2="%s" y2="%d"/>`, class, pixels(from), y+markHeight/2, pixels(x), y+markHeight/2)
	print(`<circle class="%s" cx="%s" cy="%d" r="5"/>`, class, pixels(x), y+markHeight/2)
}

// axis is where a value is, and which ones have a line.
func (c chart) axis() (at func(float64) float64, ticks []float64) {
	least, most := math.Inf(1), 0.0
	for _, r := range c.rows {
		for _, v := range r.values {
			if v > 0 { // a duration can have been rounded to nothing
				least, most = math.Min(least, v), math.Max(most, v)
			}
		}
	}
	if most == 0 {
		least, most = 1, 1
	}
	const width = plotRight - plotLeft
	if !c.log {
		step := math.Pow(10, math.Floor(math.Log10(most)))
		for _, part := range []float64{0.1, 0.2, 0.25, 0.5, 1, 2} {
			if most/(step*part) <= 6 {
				step *= part
				break
			}
		}
		end := step * math.Ceil(most/step)
		for i := 0.0; i*step <= end*1.0001; i++ {
			ticks = append(ticks, i*step)
		}
		return func(v float64) float64 { return plotLeft + width*v/end }, ticks
	}
	// The ends are of the series 1, 2, 5, 10, 20, and so on.
	if c.base > 0 {
		least, most = math.Min(least, c.base), math.Max(most, c.base)
	} else {
		least /= 1.5 // or the shortest stem is none
	}
	for e := math.Floor(math.Log10(least)) - 1; len(ticks) < 2 || ticks[len(ticks)-1] < most; e++ {
		for _, f := range []float64{1, 2, 5} {
			v := f * math.Pow(10, e)
			if v <= least*1.0001 {
				ticks = []float64{v}
			} else if len(ticks) < 2 || ticks[len(ticks)-1] < most {
				ticks = append(ticks, v)
			}
		}
	}
	low, high := math.Log(ticks[0]), math.Log(ticks[len(ticks)-1])
	return func(v float64) float64 { return plotLeft + width*(math.Log(math.Max(v, ticks[0]))-low)/(high-low) }, ticks
}

// gap stands between a number and its unit.
func (c chart) gap() string {
	if c.unit == "×" {
		return ""
	}
	return " "
}

func pixels(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// short has three significant digits, and no exponent.
func short(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(math.Round(v), 'f', -1, 64)
	}
	digits := strconv.FormatFloat(v, 'g', 3, 64)
	if rounded, err := strconv.ParseFloat(digits, 64); err == nil {
		return strconv.FormatFloat(rounded, 'f', -1, 64)
	}
	return digits
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
