// Command testreport reads the output of "go test -json" and prints a summary:
// one line for each package, and the whole output of failed tests.
//
//	go test -json ./... | testreport [-noskip] [-cover oauth=90,dpop=90] [-summary file]
//
// Its exit status is 1 if a test failed, if nothing was tested, if a test was
// skipped despite -noskip, or if a package named in -cover has
// too little statement coverage or none.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
)

func main() {
	var want demands
	flag.BoolVar(&want.noSkip, "noskip", false, "fail when a test is skipped")
	flag.Var(&want.cover, "cover", "least statement coverage in percent, as package=percent,…")
	summary := flag.String("summary", "", "write what passed, as one line, to this `file`")
	flag.Parse()

	r := newReport(os.Stdout, modulePath())
	err := r.read(os.Stdin)
	if err == nil {
		err = r.check(want)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if *summary != "" {
		if err := os.WriteFile(*summary, []byte(r.summary(want)+"\n"), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// modulePath is the module that this command belongs to; package names are
// shown, and named in -cover, relative to it.
func modulePath() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return info.Main.Path
}
