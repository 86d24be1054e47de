package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An event is one line of "go test -json", as "go doc test2json" and
// "go help buildjson" describe it.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64 // seconds
	ImportPath  string  // of a build event
	FailedBuild string  // ImportPath of the build that failed the package
}

// A report is what is known so far of a run.
type report struct {
	out      io.Writer
	module   string
	packages map[string]*pkg
	builds   map[string]*bytes.Buffer // output of go build, by import path
	skipped  []string
	failed   []string // packages
	passed   int      // tests, subtests and examples
}

// A pkg is one package under test.
type pkg struct {
	tests    map[string]*bytes.Buffer // of the tests that have not passed
	order    []string                 // their names, first seen first
	output   bytes.Buffer             // of no test
	passed   int
	coverage string // percent, "" where none was measured
	cached   bool
	done     bool
}

func newReport(out io.Writer, module string) *report {
	return &report{
		out:      out,
		module:   module,
		packages: make(map[string]*pkg),
		builds:   make(map[string]*bytes.Buffer),
	}
}

// read takes in the whole stream. Lines that are no event are passed on: they
// are what the go command has to say outside of any package.
func (r *report) read(stream io.Reader) error {
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		fmt.Fprintf(r.out, "%s\n", bytes.TrimRight(line, "\n"))
		return
	}
	switch {
	case e.ImportPath != "":
		r.build(e)
	case e.Package == "":
	case e.Test != "":
		r.test(e)
	default:
		r.pkg(e)
	}
}

func (r *report) build(e event) {
	if r.builds[e.ImportPath] == nil {
		r.builds[e.ImportPath] = new(bytes.Buffer)
	}
	r.builds[e.ImportPath].WriteString(e.Output)
}

func (r *report) test(e event) {
	p := r.of(e.Package)
	buf := p.tests[e.Test]
	if buf == nil {
		buf = new(bytes.Buffer)
		p.tests[e.Test] = buf
		p.order = append(p.order, e.Test)
	}
	switch e.Action {
	case "output":
		buf.WriteString(e.Output)
	case "pass":
		p.passed++
		p.drop(e.Test)
	case "skip":
		r.skipped = append(r.skipped, r.short(e.Package)+" "+e.Test+reason(buf.String()))
		p.drop(e.Test)
	}
}

func (p *pkg) drop(test string) {
	delete(p.tests, test)
	p.order = slices.DeleteFunc(p.order, func(name string) bool { return name == test })
}

// reason is what t.Skip was given, out of the output of the skipped test.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return ": " + line
		}
	}
	return ""
}

var coverage = regexp.MustCompile(`(?:^|\t)coverage: ([0-9.]+)% of statements`)

func (r *report) pkg(e event) {
	p := r.of(e.Package)
	switch e.Action {
	case "output":
		p.output.WriteString(e.Output)
		if m := coverage.FindStringSubmatch(e.Output); m != nil {
			p.coverage = m[1]
		}
		if strings.HasPrefix(e.Output, "ok ") && strings.Contains(e.Output, "\t(cached)") {
			p.cached = true
		}
	case "pass", "skip":
		p.done = true
		r.passed += p.passed
		if p.passed > 0 {
			r.row("ok", e, p)
		}
	case "fail":
		p.done = true
		r.passed += p.passed
		r.failed = append(r.failed, r.short(e.Package))
		r.row("FAIL", e, p)
		r.failure(e, p)
	}
}

func (r *report) row(verdict string, e event, p *pkg) {
	took := fmt.Sprintf("%4.0f s", e.Elapsed)
	if p.cached {
		took = "cached"
	}
	covered := ""
	if p.coverage != "" {
		covered = ", " + p.coverage + " % covered"
	}
	fmt.Fprintf(r.out, "%-4s  %-54s%s  %s%s\n", verdict, r.short(e.Package), took, count(p.passed, "test"), covered)
}

// failure prints all that the tests which did not end well have printed.
func (r *report) failure(e event, p *pkg) {
	if build := r.builds[e.FailedBuild]; build != nil {
		fmt.Fprint(r.out, build)
		delete(r.builds, e.FailedBuild) // once is enough for all that it failed
	}
	for _, name := range p.order {
		fmt.Fprint(r.out, p.tests[name])
	}
	fmt.Fprint(r.out, &p.output)
}

func (r *report) of(path string) *pkg {
	p := r.packages[path]
	if p == nil {
		p = &pkg{tests: make(map[string]*bytes.Buffer)}
		r.packages[path] = p
	}
	return p
}

func (r *report) short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, r.module), "/")
}

// demands are what a run must fulfil beyond passing.
type demands struct {
	noSkip bool
	cover  thresholds
}

// check reports everything for which the run has to fail.
func (r *report) check(want demands) error {
	var errs []error
	if len(r.packages) == 0 {
		errs = append(errs, errors.New("nothing was tested"))
	}
	for _, path := range slices.Sorted(maps.Keys(r.packages)) {
		if !r.packages[path].done {
			errs = append(errs, fmt.Errorf("go test ended before %s did", r.short(path)))
		}
	}
	if len(r.failed) > 0 {
		errs = append(errs, fmt.Errorf("failed: %s", strings.Join(r.failed, ", ")))
	}
	for _, skip := range r.skipped {
		if want.noSkip {
			errs = append(errs, fmt.Errorf("skipped, which no test may with CI=true: %s", skip))
		} else {
			fmt.Fprintf(r.out, "skipped: %s\n", skip)
		}
	}
	for _, t := range want.cover {
		errs = append(errs, r.checkCover(t))
	}
	return errors.Join(errs...)
}

func (r *report) checkCover(t threshold) error {
	p := r.packages[r.module+"/"+t.name]
	if p == nil || p.coverage == "" {
		return fmt.Errorf("no statement coverage of %s was measured, %g %% is asked", t.name, t.percent)
	}
	got, err := strconv.ParseFloat(p.coverage, 64)
	if err != nil || got < t.percent {
		return fmt.Errorf("statement coverage of %s is %s %%, at least %g %% is asked", t.name, p.coverage, t.percent)
	}
	return nil
}

// summary says in one line what passed.
func (r *report) summary(want demands) string {
	tested := 0
	for _, p := range r.packages {
		if p.passed > 0 {
			tested++
		}
	}
	parts := []string{count(r.passed, "test") + " in " + count(tested, "package")}
	for _, t := range want.cover {
		parts = append(parts, fmt.Sprintf("%s %s %% covered", t.name, r.packages[r.module+"/"+t.name].coverage))
	}
	if n := len(r.skipped); n > 0 {
		parts = append(parts, fmt.Sprintf("%d SKIPPED", n))
	}
	return strings.Join(parts, ", ")
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// A threshold is the least coverage of one package, in percent.
type threshold struct {
	name    string
	percent float64
}

// thresholds is the value of the -cover flag: name=percent, separated by commas.
type thresholds []threshold

func (ts *thresholds) String() string { return fmt.Sprint(*ts) }

// Set adds what one -cover flag asks for.
func (ts *thresholds) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		name, number, ok := strings.Cut(part, "=")
		percent, err := strconv.ParseFloat(number, 64)
		if !ok || name == "" || err != nil || percent < 0 || percent > 100 {
			return fmt.Errorf("%q is not package=percent", part)
		}
		*ts = append(*ts, threshold{name, percent})
	}
	return nil
}
