package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// sizeTable is what a program that renews a token, and does nothing else, is made
// of.
type sizeTable struct{}

func (sizeTable) heading() string { return "A program that renews one token" }

func (s sizeTable) run(int) {
	fmt.Printf("\n## %s\n\nThe programs are in `internal/bench/renew`; built with `CGO_ENABLED=0 go build -trimpath`, and stripped with `-ldflags '-s -w'`.\n\n"+
		"| | packages | of them outside of the standard library | MB | MB, stripped |\n| --- | ---: | ---: | ---: | ---: |\n", s.heading())
	dir, err := os.MkdirTemp("", "ycauth-bench-")
	if err != nil {
		fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, p := range []struct{ name, pkg string }{
		{"**ycauth-go** `oauth`", "./renew/ycauth"}, {"`yandex-cloud/go-sdk/v2`", "./renew/gosdk"},
	} {
		all := strings.Fields(goTool("list", "-deps", p.pkg))
		outside := 0
		for _, pkg := range all {
			if first, _, _ := strings.Cut(pkg, "/"); strings.Contains(first, ".") {
				outside++
			}
		}
		whole, stripped := filepath.Join(dir, "whole"), filepath.Join(dir, "stripped")
		goTool("build", "-trimpath", "-o", whole, p.pkg)
		goTool("build", "-trimpath", "-ldflags", "-s -w", "-o", stripped, p.pkg)
		fmt.Printf("| %s | %d | %d | %s | %s |\n", p.name, len(all), outside, megabytes(whole), megabytes(stripped))
	}
}

func goTool(args ...string) string {
	cmd := exec.CommandContext(context.Background(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		fatal(fmt.Errorf("go %s: %w", strings.Join(args, " "), err))
	}
	return string(out)
}

func megabytes(file string) string {
	info, err := os.Stat(file)
	if err != nil {
		fatal(err)
	}
	return fmt.Sprintf("%.1f", float64(info.Size())/1e6)
}
