package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"

	"github.com/cli/browser"
)

// openBrowser shows a page to the user: in the programs that $BROWSER names, or
// in the system's browser.
//
// It waits for neither longer than ctx lasts, and ends neither: the program may
// be the browser that the user goes on using.
func (a *app) openBrowser(ctx context.Context, url string) error {
	a.say("Your browser opens the login page. If it does not, open this address:\n\n%s\n\n"+
		"If your browser is on another computer, press Ctrl-C and use %q.", url, a.commandFor("login --headless"))
	done := make(chan error, 1)
	go func() { done <- a.showPage(url) }()
	select {
	case err := <-done:
		if err != nil && ctx.Err() == nil {
			a.say("No browser could be opened (%s).", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	case <-ctx.Done():
	}
	return nil // an error would have the address printed once more
}

func (a *app) showPage(url string) error {
	commands := a.getenv("BROWSER")
	switch {
	case commands != "":
	case runtime.GOOS == "windows":
		browser.Stdout, browser.Stderr = io.Discard, io.Discard // what browsers print is not for users
		return browser.OpenURL(url)
	case runtime.GOOS == "darwin":
		commands = "open"
	default:
		commands = "xdg-open:x-www-browser:www-browser:wslview"
	}
	return runBrowsers(commands, url)
}

// runBrowsers tries the commands of $BROWSER, which are separated by colons, one
// after the other. %s stands for the address, which otherwise comes last. There
// is no shell, and so no quoting.
func runBrowsers(commands, url string) error {
	var errs []error
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
		cmd := exec.Command(words[0], words[1:]...)
		detach(cmd)
		err := cmd.Run()
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", words[0], err))
	}
	if len(errs) == 0 {
		return errors.New("$BROWSER names no program")
	}
	return errors.Join(errs...)
}
