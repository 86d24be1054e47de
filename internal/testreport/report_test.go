package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the .txt files in testdata")

// Each .json file in testdata is what a real run of "go test -json" printed,
// without the times; the .txt file beside it is what is made of it.
func TestReport(t *testing.T) {
	strict := demands{noSkip: true}
	for name, c := range map[string]struct {
		want    demands
		problem string // "" is a run that passes
	}{
		"pass":     {demands{cover: thresholds{{"a", 66.7}}}, ""},
		"cached":   {demands{cover: thresholds{{"a", 0}}}, ""},
		"fail":     {strict, "failed: b"},
		"build":    {demands{}, "failed: c"},
		"panic":    {strict, "failed: e"},
		"testmain": {strict, "failed: g"},
		"timeout":  {strict, "failed: f"},
		"cut":      {demands{}, "go test ended before a did\ngo test ended before d did"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, name, c.want)
			if got := message(err); got != c.problem {
				t.Errorf("problem %q, want %q", got, c.problem)
			}
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(out), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out != string(want) {
				t.Errorf("got\n%s\nwant\n%s", out, want)
			}
		})
	}
}

func TestDemands(t *testing.T) {
	for name, c := range map[string]struct {
		want    demands
		problem string
	}{
		"no skip":           {demands{noSkip: true}, "skipped, which no test may with CI=true: a TestSkip: a_test.go:4: needs a card"},
		"too little":        {demands{cover: thresholds{{"a", 66.8}}}, "statement coverage of a is 66.7 %, at least 66.8 % is asked"},
		"no tests":          {demands{cover: thresholds{{"d", 90}}}, "statement coverage of d is 0.0 %, at least 90 % is asked"},
		"not in the run":    {demands{cover: thresholds{{"x", 0}}}, "no statement coverage of x was measured, 0 % is asked"},
		"all there is":      {demands{cover: thresholds{{"a", 66.7}, {"d", 0}}}, ""},
		"the name is whole": {demands{cover: thresholds{{"m/a", 0}}}, "no statement coverage of m/a was measured, 0 % is asked"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(t, "pass", c.want)
			if got := message(err); got != c.problem {
				t.Errorf("problem %q, want %q", got, c.problem)
			}
		})
	}
}

func TestNothingTested(t *testing.T) {
	r := newReport(new(bytes.Buffer), "example.com/m")
	if err := r.check(demands{}); message(err) != "nothing was tested" {
		t.Error(err)
	}
}

func TestSummary(t *testing.T) {
	r := newReport(new(bytes.Buffer), "example.com/m")
	if err := r.read(strings.NewReader(stream(t, "pass"))); err != nil {
		t.Fatal(err)
	}
	got := r.summary(demands{cover: thresholds{{"a", 60}}})
	if want := "3 tests in 1 package, a 66.7 % covered, 1 SKIPPED"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReadError(t *testing.T) {
	r := newReport(new(bytes.Buffer), "example.com/m")
	if err := r.read(badReader{}); !errors.Is(err, errBad) {
		t.Error(err)
	}
}

func TestThresholds(t *testing.T) {
	var got thresholds
	for _, s := range []string{"oauth=90,dpop=87.5", "refreshtoken=0"} {
		if err := got.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if want := "[{oauth 90} {dpop 87.5} {refreshtoken 0}]"; got.String() != want {
		t.Errorf("got %s, want %s", &got, want)
	}
	for _, s := range []string{"", "oauth", "=90", "oauth=", "oauth=x", "oauth=-1", "oauth=101", "oauth=90,"} {
		if err := new(thresholds).Set(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

// Whatever comes in, what is no event comes out again, and nothing panics.
func FuzzRead(f *testing.F) {
	f.Add("# not an event\n")
	f.Add(`{"Action":"output","Package":"example.com/m/a","Output":"coverage: 9.% of statements\n"}`)
	f.Add(`{"Action":"fail","Package":"p","FailedBuild":"q"}` + "\n" + `{"ImportPath":"q","Action":"build-fail"}`)
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		r := newReport(&out, "example.com/m")
		if err := r.read(strings.NewReader(s)); err != nil {
			t.Fatal(err)
		}
		err := r.check(demands{noSkip: true, cover: thresholds{{"a", 90}}})
		if err == nil && r.packages["example.com/m/a"] == nil {
			t.Error("a run without package a has covered it")
		}
		if !strings.Contains(s, "{") && !strings.Contains(out.String(), strings.TrimRight(s, "\n")) {
			t.Errorf("%q was swallowed: %q", s, &out)
		}
	})
}

func run(t *testing.T, name string, want demands) (string, error) {
	t.Helper()
	var out bytes.Buffer
	r := newReport(&out, "example.com/m")
	if err := r.read(strings.NewReader(stream(t, name))); err != nil {
		t.Fatal(err)
	}
	err := r.check(want)
	return out.String(), err
}

func stream(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

var errBad = errors.New("bad")

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, errBad }
