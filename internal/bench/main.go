// Bench measures this module and its peers side by side, in one run, and writes
// docs/BENCHMARKS.md and the plots in it:
//
//	go run .
//	go run . -kill    measures the kills too, which takes minutes
//	go run . -draw    draws the plots of the page once more
//
// It is a module of its own so that nobody who uses ycauth-go needs the peers.
// Machines are shared and noisy: the candidates of a table take turns, several
// rounds long, the median of each counts, and what matters is the ratio.
package main

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// cards counts commands, which need no clock: a test prints them.
//
//go:embed cards.md
var cards string

// kills is what the last run of ./kill printed. It is measured apart, on a disk of
// its user's choice.
//
//go:embed kill.md
var kills string

func main() {
	testing.Init()
	rounds := flag.Int("rounds", 9, "how often each candidate takes its turn")
	benchtime := flag.Duration("time", 200*time.Millisecond, "how long one turn takes")
	only := flag.String("only", "", "print the tables whose title holds this text, and write nothing")
	out := flag.String("out", "../../docs", "the `directory` of the page and its plots; - prints the page, without plots")
	kill := flag.Bool("kill", false, "run ./kill again, and keep what it prints in kill.md")
	draw := flag.Bool("draw", false, "measure nothing, and draw the plots of the page as it is")
	pages := flag.Int("serve", 0, "be the server of so many pages of refresh tokens, and measure nothing")
	flag.Parse()
	if *pages > 0 {
		if err := serve(*pages); err != nil {
			fatal(err)
		}
		return
	}
	if err := flag.Set("test.benchtime", benchtime.String()); err != nil {
		fatal(err)
	}
	if *only != "" || *out == "-" {
		measure(*only, *rounds, *benchtime)
		return
	}
	if _, err := os.Stat(*out); err != nil { // before it has taken minutes
		fatal(err)
	}
	if *kill {
		kills = "\n" + goTool("run", "./kill")
		if err := replace("kill.md", []byte(kills)); err != nil {
			fatal(err)
		}
	}
	var (
		page string
		err  error
	)
	if *draw {
		page, err = readPage(*out)
	} else {
		page, err = capture(func() { measure("", *rounds, *benchtime) })
	}
	if err == nil {
		err = write(*out, page)
	}
	if err != nil {
		fatal(err)
	}
}

// measure prints the page.
func measure(only string, rounds int, benchtime time.Duration) {
	fmt.Printf("# Benchmarks\n\n`cd internal/bench && go run .` writes this page and its plots. "+
		"%s, %s/%s, %d cores; median of %d turns of %v each, the candidates of a table taking turns. Ratios carry over to other machines, times do not.\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), rounds, benchtime)
	for _, s := range sections() {
		if strings.Contains(s.heading(), only) {
			s.run(rounds)
		}
	}
	if only == "" {
		fmt.Print(kills, cards)
	}
}

// A section of the page is a table, in most cases one of times.
type section interface {
	heading() string
	run(rounds int)
}

func sections() []section {
	return []section{tokenTable(1), tokenTable(32), proofTable(), listTable(), heapTable{}, sizeTable{}}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// table compares candidates; the first one is the floor.
type table struct {
	title, text string
	unit        time.Duration // of the times printed; 0 is a nanosecond
	candidates  []candidate
}

func (t table) heading() string { return t.title }

type candidate struct {
	name  string
	bench func(b *testing.B)
}

type result struct {
	ns     []float64
	allocs int64
	bytes  int64
}

func (t table) run(rounds int) {
	results := make([]result, len(t.candidates))
	for round := range rounds {
		for i := range t.candidates {
			i = (i + round) % len(t.candidates) // nobody always comes after the same one
			r := testing.Benchmark(t.candidates[i].bench)
			if r.N == 0 {
				fatal(fmt.Errorf("%s failed", t.candidates[i].name))
			}
			results[i].ns = append(results[i].ns, float64(r.T.Nanoseconds())/float64(r.N))
			results[i].allocs, results[i].bytes = r.AllocsPerOp(), r.AllocedBytesPerOp()
		}
	}
	unit, per := "ns", 1.0
	if t.unit == time.Millisecond {
		unit, per = "ms", 1e6
	}
	fmt.Printf("\n## %s\n\n%s\n\n| | %s/op | ratio | B/op | allocs/op |\n| --- | ---: | ---: | ---: | ---: |\n", t.title, t.text, unit)
	floor := median(results[0].ns)
	for i, c := range t.candidates {
		m := median(results[i].ns)
		fmt.Printf("| %s | %s | %.2f | %d | %d |\n", c.name, number(m/per), m/floor, results[i].bytes, results[i].allocs)
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func number(ns float64) string {
	if ns < 100 {
		return fmt.Sprintf("%.1f", ns)
	}
	return fmt.Sprintf("%.0f", ns)
}
