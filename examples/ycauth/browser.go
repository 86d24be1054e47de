package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/cli/browser"
)

// openBrowser shows a page to the user: in the programs that $BROWSER names, or
// in the system's browser.
//
// It waits for neither longer than ctx lasts, and ends neither: the program may
// be the browser that the user goes on using.
func (a *app) openBrowser(ctx context.Context, url string) error {
	a.say("Your browser opens the login page. If it does not, open this address:\n\n%s\n", url)
	open := systemBrowser
	if commands := a.getenv("BROWSER"); commands != "" {
		open = func(url string) error { return runBrowsers(commands, url) }
	}
	done := make(chan error, 1)
	go func() { done <- open(url) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return nil
	}
}

func systemBrowser(url string) error {
	browser.Stdout, browser.Stderr = io.Discard, io.Discard // what browsers print is not for users
	return browser.OpenURL(url)
}

// runBrowsers tries the commands of $BROWSER, which are separated by colons, one
// after the other. %s stands for the address, which otherwise comes last. There
// is no shell, and so no quoting.
func runBrowsers(commands, url string) error {
	err := fmt.Errorf("$BROWSER names no program")
	for command := range strings.SplitSeq(commands, ":") {
		words := strings.Fields(command)
		if len(words) == 0 {
			continue
		}
		placed := false
		for i, w := range words {
			if strings.Contains(w, "%s") {
				words[i], placed = strings.ReplaceAll(w, "%s", url), true
			}
		}
		if !placed {
			words = append(words, url)
		}
		//nolint:noctx // it must outlive the login: see openBrowser
		if err = exec.Command(words[0], words[1:]...).Run(); err == nil {
			return nil
		}
	}
	return err
}
