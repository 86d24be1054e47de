package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/ycauth/ycauth-go/piv"
)

// cardPrompt asks for PINs and touches on the terminal.
type cardPrompt struct {
	a    *app
	mute bool // the caller of the program says that nobody can be asked
}

var _ piv.LastTryPrompt = cardPrompt{}

func (a *app) prompt() piv.Prompt { return cardPrompt{a: a, mute: a.unattended} }

var errNoTerminal = codedError{exitKey, errors.New("the YubiKey wants its PIN and there is no terminal to ask for it: run \"ycauth token\" in one first")}

// PIN reads the PIN without echo.
func (p cardPrompt) PIN(ctx context.Context, r piv.PINRequest) (string, error) {
	question := fmt.Sprintf("PIN of YubiKey %d", r.Serial)
	switch {
	case r.LastTry:
		question += " (last try)"
	case r.TriesLeft == 2: // the usual card begins with 3
		question += " (2 tries left)"
	}
	return p.ask(ctx, func(tty *os.File) (string, error) { return p.readPIN(tty, question+": ") })
}

// readPIN stops the echo before it asks: a PIN that is typed at once must not be
// seen either, so that [term.ReadPassword] after the question would be too late.
// The terminal sends no signals meanwhile, and Ctrl-C is read here.
func (p cardPrompt) readPIN(tty *os.File, question string) (string, error) {
	state, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return "", err
	}
	pin, err := term.NewTerminal(readWriter{tty, p.a.stderr}, "").ReadPassword(question)
	err = errors.Join(err, term.Restore(int(tty.Fd()), state))
	if errors.Is(err, io.EOF) {
		p.a.interrupt()
		return "", context.Canceled
	}
	return pin, err
}

type readWriter struct {
	io.Reader
	io.Writer
}

// SpendLastTry asks for an explicit yes.
func (p cardPrompt) SpendLastTry(ctx context.Context, r piv.PINRequest) (bool, error) {
	question := fmt.Sprintf("One try is left: a wrong PIN blocks YubiKey %d. Type yes to go on: ", r.Serial)
	answer, err := p.ask(ctx, func(tty *os.File) (string, error) {
		fmt.Fprint(p.a.stderr, question)
		return readLine(tty)
	})
	return answer == "yes", err
}

// ask puts a question to the person at the terminal. When ctx ends, the terminal
// is as it was before, and nobody waits for the answer.
func (p cardPrompt) ask(ctx context.Context, read func(tty *os.File) (string, error)) (string, error) {
	if p.mute {
		return "", errNoTerminal
	}
	tty, release := p.a.openTerminal()
	if tty == nil {
		return "", errNoTerminal
	}
	state, err := term.GetState(int(tty.Fd()))
	if err != nil {
		release()
		return "", err
	}
	type answer struct {
		text string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		text, err := read(tty)
		answered <- answer{text, err}
		release()
	}()
	select {
	case got := <-answered:
		return got.text, got.err
	case <-ctx.Done():
		_ = term.Restore(int(tty.Fd()), state)
		return "", context.Cause(ctx)
	}
}

// Touch says that the card waits, for as long as it does.
func (p cardPrompt) Touch(_ context.Context, r piv.TouchRequest) (done func()) {
	text := fmt.Sprintf("Touch your YubiKey %d", r.Serial)
	if !isTerminal(p.a.stderr) {
		fmt.Fprintln(p.a.stderr, text)
		return nil
	}
	fmt.Fprint(p.a.stderr, text)
	return func() { fmt.Fprint(p.a.stderr, "\r\x1b[K") }
}

// openTerminal finds the person: at stdin, or behind it where stdin is a pipe.
func (a *app) openTerminal() (tty *os.File, release func()) {
	if f, ok := a.stdin.(*os.File); ok && isTerminal(f) {
		return f, func() {}
	}
	if f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		return f, func() { f.Close() }
	}
	return nil, nil
}

// isTerminal reports whether a stream of the program is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// readLine reads one line of a terminal.
func readLine(f *os.File) (string, error) {
	line, err := bufio.NewReader(f).ReadString('\n')
	if line = strings.TrimSpace(line); line != "" {
		return line, nil
	}
	return "", err
}

// confirm has the user type a word before something that cannot be undone. Only
// a person at a terminal can: a pipe says --yes.
func (a *app) confirm(ctx context.Context, question, word string) error {
	in, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(in) {
		return usagef("%s Nobody can be asked here: add --yes if you are sure", question)
	}
	fmt.Fprintf(a.stderr, "%s\nType %q to go on: ", question, word)
	typed := make(chan string, 1)
	go func() {
		line, _ := readLine(in) // no line is no confirmation
		typed <- line
	}()
	select {
	case line := <-typed:
		if line != word {
			return codedError{exitFailure, errors.New("not confirmed: nothing was revoked")}
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
