// Release makes a release of all modules of this repository, and keeps their
// requirements in order between releases:
//
//	go run ./internal/release v0.1.0
//	go run ./internal/release tidy
//	go run ./internal/release api v0.1.0 APIDIFF
//
// With a version it writes that into each go.mod and into go.work, completes each
// go.sum, commits, and tags each module that others can require: the SDK first, then
// every module after those that it requires. It pushes nothing; the command that
// does is its last line.
//
// The go.sum of a module holds the hashes of the modules it requires, so they must
// exist as tags before it is written. They do in a scratch repository, which the
// go command is sent to in place of the public one. "tidy" does the same for
// "go mod tidy", which otherwise finds no version that is yet to be published.
//
// "api" finds incompatible changes since a release that CHANGELOG.md does not
// announce, by the program apidiff that is named.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
)

func main() {
	if args := len(os.Args) - 1; args != 1 && (args != 3 || os.Args[1] != "api") {
		fmt.Fprintln(os.Stderr, "usage: go run ./internal/release VERSION|tidy|api TAG APIDIFF")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1], os.Args[2:]...)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, what string, args ...string) error {
	root, err := command(ctx, ".", nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ycauth-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	switch what {
	case "tidy":
		return writeTidy(ctx, root, dir)
	case "api":
		return checkAPI(ctx, root, dir, args[0], args[1])
	}
	tags, err := release(ctx, root, dir, what)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		fmt.Println("tagged", tag)
	}
	fmt.Print("git push --atomic origin HEAD")
	for _, tag := range tags {
		fmt.Print(" ", tag)
	}
	fmt.Println()
	return nil
}

func writeTidy(ctx context.Context, root, dir string) error {
	changed, err := tidy(ctx, root, dir)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(name)), []byte(changed[name]), 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", name)
	}
	// It loads all there is to load, so that no other command has to add to
	// go.work.sum.
	_, err = command(ctx, root, nil, "go", "list", "-m", "all")
	return err
}
