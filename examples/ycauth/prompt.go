package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/term"

	"github.com/ycauth/ycauth-go/piv"
)

// cardPrompt asks for PINs and touches on the terminal.
type cardPrompt struct {
	a    *app
	mute bool // the caller of the program says that nobody can be asked
}

var (
	_ piv.LastTryPrompt = cardPrompt{}
	_ piv.BusyPrompt    = cardPrompt{}
)

func (a *app) prompt() piv.Prompt { return cardPrompt{a: a, mute: a.unattended} }

func (a *app) errNoTerminal() error {
	return codedError{exitKey, fmt.Errorf("the YubiKey wants its PIN and there is no terminal to ask for it: run %q in one first", a.commandFor("token --renew"))}
}

// PIN reads the PIN without echo.
func (p cardPrompt) PIN(ctx context.Context, r piv.PINRequest) (string, error) {
	question := fmt.Sprintf("PIN of YubiKey %d", r.Serial)
	if r.FactoryPIN {
		const notice = "YubiKey %d still has the PIN of the factory, which protects nothing. Change it with \"ykman piv access change-pin\".\n"
		question = fmt.Sprintf(notice, r.Serial) + question
	}
	switch {
	case r.LastTry:
		question += " (last attempt)"
	case r.TriesLeft == 2: // the usual card begins with 3
		question += " (2 attempts left)"
	}
	return p.ask(ctx, func(t terminal) (string, error) { return p.a.readHidden(t, question+": ") })
}

// SpendLastTry asks for an explicit yes.
func (p cardPrompt) SpendLastTry(ctx context.Context, r piv.PINRequest) (bool, error) {
	question := fmt.Sprintf("One attempt is left: a wrong PIN blocks YubiKey %d. Type yes to continue: ", r.Serial)
	answer, err := p.ask(ctx, func(t terminal) (string, error) { return readLine(t, question) })
	return answer == "yes", err
}

func (p cardPrompt) ask(ctx context.Context, read func(terminal) (string, error)) (string, error) {
	if p.mute {
		return "", p.a.errNoTerminal()
	}
	t, ok := p.a.openTerminal()
	if !ok {
		return "", p.a.errNoTerminal()
	}
	return ask(ctx, t, read)
}

// Touch says that the card waits, for as long as it does.
func (p cardPrompt) Touch(_ context.Context, r piv.TouchRequest) (done func()) {
	return p.announce(fmt.Sprintf("Touch your YubiKey %d", r.Serial))
}

// Busy says that another program keeps the card, for as long as it does.
func (p cardPrompt) Busy(_ context.Context, r piv.BusyRequest) (done func()) {
	which := "the YubiKey"
	if r.Serial != 0 {
		which = fmt.Sprintf("YubiKey %d", r.Serial)
	}
	return p.announce("Another program is using " + which + ", perhaps waiting for a touch")
}

// announce tells the person what the program waits for, and takes it back when that
// is over, on terminals that can do so.
func (p cardPrompt) announce(text string) (done func()) {
	if p.a.stderr.smart {
		p.a.stderr.transient("%s", text)
		return func() { p.a.stderr.transient("") }
	}
	if !p.mute && !isTerminal(p.a.stderr.w) {
		if t, ok := p.a.openTerminal(); ok { // stderr is a file, and the person is here
			defer t.close()
			fmt.Fprintln(t.out, text)
			return nil
		}
	}
	p.a.say("%s", text)
	return nil
}

// A terminal is where a person can be asked.
type terminal struct {
	in, out *os.File
	close   func()
}

// openTerminal finds the person, wherever stdin, stdout and stderr lead: at the
// terminal that the program belongs to, or at stdin.
func (a *app) openTerminal() (terminal, bool) {
	in, out := "/dev/tty", "/dev/tty"
	if runtime.GOOS == "windows" {
		in, out = "CONIN$", "CONOUT$"
	}
	if r, err := os.OpenFile(in, os.O_RDWR, 0); err == nil {
		if w, err := os.OpenFile(out, os.O_RDWR, 0); err == nil {
			return terminal{r, w, func() { r.Close(); w.Close() }}, true
		}
		r.Close()
	}
	f, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(f) {
		return terminal{}, false
	}
	t := terminal{f, f, func() {}}
	if w, ok := a.stderr.w.(*os.File); ok && isTerminal(w) {
		t.out = w
	}
	return t, true
}

// ask puts a question to the person at the terminal, which it closes. When ctx
// ends, the terminal is as it was before, and nobody waits for the answer.
func ask(ctx context.Context, t terminal, read func(terminal) (string, error)) (string, error) {
	state, err := term.GetState(int(t.in.Fd()))
	if err != nil {
		t.close()
		return "", err
	}
	text, err := interruptibly(ctx, func() (string, error) {
		defer t.close()
		return read(t)
	})
	if ctx.Err() != nil {
		_ = term.Restore(int(t.in.Fd()), state)
		return "", context.Cause(ctx)
	}
	return text, err
}

// readHidden reads a line without echo. It stops the echo before it asks, because
// a PIN that is typed at once must not be seen either: [term.ReadPassword] after
// the question would be too late. The terminal sends no signals meanwhile, and
// Ctrl-C is read here. What the question says before its last line is shown first.
func (a *app) readHidden(t terminal, question string) (string, error) {
	state, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return "", err
	}
	if i := strings.LastIndexByte(question, '\n'); i >= 0 {
		fmt.Fprint(t.out, strings.ReplaceAll(question[:i+1], "\n", "\r\n")) // the terminal is raw
		question = question[i+1:]
	}
	secret, err := term.NewTerminal(readWriter{t.in, t.out}, "").ReadPassword(question)
	err = errors.Join(err, term.Restore(int(t.in.Fd()), state))
	if errors.Is(err, io.EOF) {
		a.signals.cancel()
		return "", context.Canceled
	}
	return secret, err
}

type readWriter struct {
	io.Reader
	io.Writer
}

// readLine reads one line of a terminal.
func readLine(t terminal, question string) (string, error) {
	fmt.Fprint(t.out, question)
	line, err := bufio.NewReader(t.in).ReadString('\n')
	if line = strings.TrimSpace(line); line != "" {
		return line, nil
	}
	return "", err
}

// canConfirm reports whether there is a person to ask: at stdin, because a script
// that is fed by a pipe says --yes.
func (a *app) canConfirm() bool { return isTerminal(a.stdin) }

// confirm has the user type a text before something that cannot be undone. kept is
// what the user is told where they do not.
func (a *app) confirm(ctx context.Context, statement, word, kept string) error {
	t, ok := a.openTerminal()
	if !ok || !a.canConfirm() {
		return usagef("%s Nobody can be asked here: add --yes if you are sure", statement)
	}
	question := linef("%s\n", statement) + linef("Type %q to go on: ", word)
	typed, err := ask(ctx, t, func(t terminal) (string, error) { return readLine(t, question) })
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case typed != word:
		if err != nil {
			a.say("") // after Ctrl-D the question has not ended its line
		}
		return codedError{exitFailure, errors.New("not confirmed: " + kept)}
	}
	return nil
}
