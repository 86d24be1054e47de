package storetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/ycauth/ycauth-go/oauth"
)

// partVariable carries a part to a process that Run starts.
const partVariable = "YCAUTH_STORETEST_PART"

// A part is what such a process is to do.
type part struct {
	Subject string
	Place   string
	Scratch string
	Role    string
	Number  int // what it means is the role's affair
}

// An actor plays a role with a store. It reads commands and reports on standard
// output.
type actor func(ctx context.Context, s oauth.Store, p part, commands <-chan string) error

var roles = map[string]actor{
	"count": playCount,
	"hold":  playHold,
	"write": playWrite,
}

// subjects are those that a process that Run starts knows as well.
var subjects sync.Map // of Subject by name

func known(name string) bool {
	_, ok := subjects.Load(name)
	return ok
}

// Child must be called first in TestMain, with the subjects of all tests that
// call [Run]. In a process that Run has started it performs the role of that process and
// exits. Otherwise it returns at once.
func Child(all ...Subject) {
	for _, s := range all {
		subjects.Store(s.Name, s)
	}
	value, ok := os.LookupEnv(partVariable)
	if !ok {
		return
	}
	if err := play(context.Background(), value); err != nil {
		fmt.Printf("\n%serror %v\n", marker, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func play(ctx context.Context, value string) error {
	var p part
	if err := json.Unmarshal([]byte(value), &p); err != nil {
		return err
	}
	subject, ok := subjects.Load(p.Subject)
	if !ok {
		return fmt.Errorf("storetest.Child was not called with the subject %q", p.Subject)
	}
	actor, ok := roles[p.Role]
	if !ok {
		return fmt.Errorf("there is no role %q", p.Role)
	}
	s, err := subject.(Subject).Open(p.Place)
	if err != nil {
		return failed("Open", err)
	}
	err = actor(ctx, s, p, commands())
	if c, ok := s.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return err
}

// commands reads lines from standard input. When it ends, the test has ended,
// and so does this process.
func commands() <-chan string {
	lines := make(chan string)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- in.Text()
		}
		os.Exit(1)
	}()
	return lines
}

// marker begins the lines of this package: a store, or what it is made of, may
// print something, too.
const marker = "storetest: "

// report writes a line. Standard output is not buffered, so what was reported is
// known to the test even if the process is killed right after.
func report(word string, number uint64) { fmt.Printf("\n%s%s %d\n", marker, word, number) }

// playCount counts the generation up, Number times.
func playCount(ctx context.Context, s oauth.Store, p part, commands <-chan string) error {
	report("ready", 0)
	<-commands
	for range p.Number {
		err := s.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
			leave, err := enter(p.Scratch)
			if err != nil {
				return current, err
			}
			defer leave()
			return numbered(current.Generation + 1), nil
		})
		if err != nil {
			return failed("Update", err)
		}
	}
	report("done", 0)
	return nil
}

// playHold goes into an Update and does there what it is told: "load", "store"
// the next session. Number is 1 if Update may fail.
func playHold(ctx context.Context, s oauth.Store, p part, commands <-chan string) error {
	err := s.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
		report("inside", current.Generation)
		for {
			switch <-commands {
			case "load":
				seen, err := s.Load(ctx)
				if err != nil && !errors.Is(err, oauth.ErrNoSession) {
					return current, failed("Load", err)
				}
				report("loaded", seen.Generation)
			case "store":
				return numbered(current.Generation + 1), nil
			}
		}
	})
	if err != nil && p.Number == 1 {
		report("rejected", 0)
		<-commands
		return nil
	}
	if err != nil {
		return failed("Update", err)
	}
	seen, err := s.Load(ctx)
	if err != nil {
		return failed("Load", err)
	}
	report("stored", seen.Generation)
	<-commands
	return nil
}

// playWrite counts up until it is killed, and reports what is stored for good.
func playWrite(ctx context.Context, s oauth.Store, _ part, _ <-chan string) error {
	for {
		var written uint64
		err := s.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
			if !current.IsZero() {
				if err := whole(current); err != nil {
					return current, err
				}
			}
			written = current.Generation + 1
			return numbered(written), nil
		})
		if err != nil {
			return failed("Update", err)
		}
		report("stored", written)
	}
}

// enter marks that fn runs, for processes to see. It fails if the mark is there.
func enter(scratch string) (leave func(), err error) {
	mark := scratch + string(os.PathSeparator) + "inside"
	f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, errors.New("fn ran in two processes at the same time")
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(strconv.Itoa(os.Getpid()))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(mark) }, nil
}
