//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

// patience is how long a test waits for a program.
const patience = time.Minute

// screen collects what a program writes, and lets others wait for a text.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{} // of capacity 1
	end  chan struct{} // closed when no more comes
}

func newScreen() *screen { return &screen{news: make(chan struct{}, 1), end: make(chan struct{})} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	select {
	case s.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// wait returns what the pattern matches in the text from an offset on, and where
// that ends.
func (s *screen) wait(ctx context.Context, pattern string, from int) (match string, end int, err error) {
	re := regexp.MustCompile(pattern)
	for over := false; ; {
		text := s.String()
		if loc := re.FindStringIndex(text[from:]); loc != nil {
			return text[from+loc[0] : from+loc[1]], from + loc[1], nil
		}
		if over {
			return "", from, errors.New("the program ended without " + pattern + " after\n" + text)
		}
		select {
		case <-s.news:
		case <-s.end:
			over = true
		case <-ctx.Done():
			return "", from, errors.New("the program did not write " + pattern + " but\n" + text)
		}
	}
}

// actionsKey is where a script keeps what a line of a dialogue can do besides
// typing, by the name of the line.
type actionsKey struct{}

type actions map[string]func(context.Context) error

// terminal CODE SCREEN DIALOGUE PROGRAM… runs a program on a pseudo-terminal. The
// lines of the file DIALOGUE are what to wait for ("? pattern"), and what to do
// then: type a line ("> text"), press Ctrl-C ("^C") or Ctrl-D ("^D"), touch the card ("touch"), have
// another program let go of it ("release").
// /dev/null is none. SCREEN gets what was on the screen.
func runTerminal(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path, err := exec.LookPath(args[3])
	ts.Check(err)
	cmd := exec.CommandContext(ctx, path, args[4:]...)
	cmd.Env = environ(ts)
	cmd.Dir = ts.MkAbs(".")
	tty, err := pty.Start(cmd)
	ts.Check(err)
	s := newScreen()
	go func() {
		defer close(s.end)
		_, _ = io.Copy(s, tty) // EIO when the program has ended
	}()
	acts, _ := ts.Value(actionsKey{}).(actions)
	err = converse(ctx, s, tty, acts, ts.ReadFile(args[2]))
	if err != nil {
		cancel()
	}
	_ = cmd.Wait() // its exit code is looked at below
	<-s.end
	tty.Close()
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(s.String()), 0o600))
	ts.Logf("[screen]\n%s", s.String())
	ts.Check(err)
	if got, want := cmd.ProcessState.ExitCode(), atoi(ts, args[0]); neg || got != want {
		ts.Fatalf("the exit code is %d, want %d", got, want)
	}
}

func converse(ctx context.Context, s *screen, tty io.Writer, acts actions, dialogue string) error {
	at := 0
	for line := range strings.Lines(dialogue) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch kind {
		case "?":
			_, end, err := s.wait(ctx, rest, at)
			if err != nil {
				return err
			}
			at = end
		case ">":
			if _, err := io.WriteString(tty, rest+"\r"); err != nil {
				return err
			}
		case "^C", "^D":
			if _, err := tty.Write([]byte{kind[1] - '@'}); err != nil {
				return err
			}
		default:
			act, ok := acts[kind]
			if !ok {
				return errors.New("no line of a dialogue: " + line)
			}
			if err := act(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// paste CODE FLAGS… is "ycauth login --headless": it opens the address that is
// printed, in a browser that cannot reach ycauth, and enters the address that
// this one ended on, after a wrong one.
func runPaste(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path, err := exec.LookPath("ycauth")
	ts.Check(err)
	cmd := exec.CommandContext(ctx, path, append([]string{"login", "--headless"}, args[1:]...)...)
	cmd.Env = environ(ts)
	s := newScreen()
	cmd.Stderr, cmd.Stdout = s, s
	stdin, err := cmd.StdinPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	err = pasteAddress(ctx, s, stdin)
	if err != nil {
		cancel()
	}
	_ = cmd.Wait() // its exit code is looked at below
	ts.Logf("[screen]\n%s", s.String())
	ts.Check(err)
	if got, want := cmd.ProcessState.ExitCode(), atoi(ts, args[0]); neg || got != want {
		ts.Fatalf("the exit code is %d, want %d", got, want)
	}
}

func pasteAddress(ctx context.Context, s *screen, stdin io.Writer) error {
	address, at, err := s.wait(ctx, `http://\S*/oauth/authorize\S*`, 0)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(stdin, "https://example.com/not-it?code=1\n"); err != nil {
		return err
	}
	if _, _, err := s.wait(ctx, "Enter the whole address", at); err != nil {
		return err
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	_, err = io.WriteString(stdin, resp.Header.Get("Location")+"\n")
	return err
}
