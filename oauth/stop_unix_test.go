//go:build unix

package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

const childVariable = "YCAUTH_TEST_TOKEN_URL"

// TestChildOfStop is the process that is stopped. By itself it does nothing.
func TestChildOfStop(t *testing.T) {
	url := os.Getenv(childVariable)
	if url == "" {
		return
	}
	c, err := oauth.New(oauth.Config{
		Provider: oauth.Provider{Name: "test", TokenURL: url}, ClientID: "client",
		RequestTimeout: time.Second, MaxAttempts: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Import(t.Context(), "rt-0"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.TokenSource().Token(); err != nil {
		t.Fatal(err)
	}
}

// A process that is stopped for longer than the request may take finds the response
// when it goes on, or a moment later: only then is it certain that the timer, and not
// the response, comes first.
func TestStoppedProcessReadsTheResponse(t *testing.T) {
	asked, served := make(chan struct{}, 1), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-served
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, tokenJSON("at-1", "rt-1", 3600))
	}))
	defer srv.Close()
	for _, late := range []bool{false, true, true} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildOfStop$")
		cmd.Env = append(os.Environ(), childVariable+"="+srv.URL)
		var out safeBuffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-asked:
		case <-time.After(30 * time.Second):
			t.Fatal("no request")
		}
		if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if !late {
			served <- struct{}{}
		}
		time.Sleep(2 * time.Second) // longer than RequestTimeout
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if late {
			time.Sleep(100 * time.Millisecond)
			served <- struct{}{}
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}

// TestChildOfPipe renews with a logger whose reader has gone.
func TestChildOfPipe(t *testing.T) {
	url := os.Getenv(childVariable + "_PIPE")
	if url == "" {
		return
	}
	signal.Reset(syscall.SIGPIPE) // as in a program: a write to a closed standard error ends it
	store := &writtenStore{Store: oauth.NewMemoryStore(), path: os.Getenv("YCAUTH_TEST_WRITTEN")}
	c, err := oauth.New(oauth.Config{
		Provider: oauth.Provider{Name: "test", TokenURL: url}, ClientID: "client", Store: store,
		Observer: func(e oauth.Event) {
			if e.Kind == oauth.EventRenewed {
				fmt.Fprintln(os.Stderr, "renewed")
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Import(t.Context(), "rt-0"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.TokenSource().Token(); err != nil {
		t.Fatal(err)
	}
}

// writtenStore writes down the refresh token that it was given last.
type writtenStore struct {
	oauth.Store
	path string
}

func (s *writtenStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.Store.Update(ctx, func(cur oauth.Session) (oauth.Session, error) {
		next, err := fn(cur)
		if err == nil {
			err = os.WriteFile(s.path, []byte(next.RefreshToken.Reveal()), 0o600)
		}
		return next, err
	})
}

// An observer that kills the process, here by writing to a pipe that nobody reads,
// does not come between the response and the store.
func TestObserverComesAfterTheStore(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, tokenJSON("at-1", "rt-1", 3600))
	}))
	defer srv.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	path := t.TempDir() + "/written"
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildOfPipe$")
	cmd.Env = append(os.Environ(), childVariable+"_PIPE="+srv.URL, "YCAUTH_TEST_WRITTEN="+path)
	cmd.Stderr = w
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGPIPE {
		t.Fatalf("the process ended with %v, and should have died of the pipe", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "rt-1" {
		t.Errorf("stored %q, %v: the new refresh token died with the process", data, err)
	}
}
