package storetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/oauth"
)

// faults are mistakes that a Store can have, and the check that must notice.
var faults = map[string]string{
	"Load invents an error of its own": "no session",
	"the warning is forgotten":         "round trip",
	"fn is called twice":               "round trip",
	"tokens are cut at 8000":           "large",
	"unchanged means nothing to keep":  "unchanged",
	"a zero session is not stored":     "removal",
	"the error of fn is wrapped":       "error of fn",
	"an error stores all the same":     "error of fn",
	"a panic keeps the lock":           "panic of fn",
	"a panic is swallowed":             "panic of fn",
	"Load takes the lock":              "load during update",
	"ctx is not looked at":             "ctx ended before",
	"the wait ignores ctx":             "ctx ends in the wait",
	"ctx stops the storing":            "ctx ends in fn",
	"ctx ends what was stored":         "ctx ends in fn",
	"there is no lock":                 "100 goroutines",
	"the lock is the value's own":      "several values",
	"the lock is the process's own":    "several processes",
	"Load reads once":                  "visible to processes",
	"the process owns the lock alone":  "locked by a process",
	"a lock file stays":                "killed with the lock",
	"the file is written in place":     "killed while writing",
	"every other write is late":        "killed while writing",
}

func faultySubject(fault string) Subject {
	return Subject{
		Name:  "faulty: " + fault,
		Kills: 10,
		Open: func(place string) (oauth.Store, error) {
			return &faulty{fault: fault, path: place, lock: filelock.New(place + ".lock")}, nil
		},
	}
}

func TestMain(m *testing.M) {
	all := []Subject{faultySubject("")}
	for fault := range faults {
		all = append(all, faultySubject(fault))
	}
	Child(all...)
	os.Exit(m.Run())
}

// TestNoFault shows that the checks below fail for the faults' sake.
func TestNoFault(t *testing.T) { Run(t, faultySubject("")) }

func TestFaults(t *testing.T) {
	byName := map[string]check{}
	for _, c := range checks {
		byName[c.name] = c
	}
	for fault, name := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, faultySubject(fault))
			b.patience = 2 * time.Second
			err := b.bounded(t.Context(), byName[name])
			if err == nil {
				t.Fatalf("the check %q passes", name)
			}
			t.Log(err)
		})
	}
}

// processLocks are those that are the process's own.
var processLocks sync.Map // of *sync.Mutex, by path

// faulty is a Store in a file, with one fault.
type faulty struct {
	fault string
	path  string
	lock  *filelock.Lock

	mu    sync.Mutex
	own   sync.Mutex
	first *oauth.Session
	calls atomic.Int32
}

func (f *faulty) is(fault string) bool { return f.fault == fault }

func (f *faulty) Load(ctx context.Context) (oauth.Session, error) {
	if f.is("Load takes the lock") {
		release, err := f.lock.Acquire(ctx)
		if err != nil {
			return oauth.Session{}, err
		}
		defer release()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.is("Load reads once") && f.first != nil {
		return *f.first, nil
	}
	session, err := f.read()
	f.first = &session
	if err == nil && session.IsZero() {
		err = oauth.ErrNoSession
		if f.is("Load invents an error of its own") {
			err = errors.New("nothing there")
		}
	}
	return session, err
}

func (f *faulty) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	if ctx.Err() != nil && !f.is("ctx is not looked at") {
		return ctx.Err()
	}
	release, err := f.acquire(ctx)
	if err != nil {
		return err
	}
	if !f.is("a panic keeps the lock") {
		defer release()
	}
	if f.is("a panic is swallowed") {
		defer func() { _ = recover() }()
	}
	current, err := f.read()
	if err != nil {
		return err
	}
	next, err := fn(current)
	if f.is("fn is called twice") {
		next, err = fn(current)
	}
	if f.is("a panic keeps the lock") {
		defer release()
	}
	if err != nil && !f.is("an error stores all the same") {
		if f.is("the error of fn is wrapped") {
			return fmt.Errorf("fn: %w", err)
		}
		return err
	}
	if f.is("ctx stops the storing") && ctx.Err() != nil {
		return nil
	}
	if err := f.write(current, next); err != nil {
		return err
	}
	if f.is("ctx ends what was stored") && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (f *faulty) acquire(ctx context.Context) (release func(), err error) {
	switch f.fault {
	case "there is no lock":
		return func() {}, nil
	case "the lock is the value's own":
		f.own.Lock()
		return f.own.Unlock, nil
	case "the lock is the process's own", "the process owns the lock alone":
		lock, _ := processLocks.LoadOrStore(f.path, new(sync.Mutex))
		lock.(*sync.Mutex).Lock()
		return lock.(*sync.Mutex).Unlock, nil
	case "a lock file stays":
		return exclusiveFile(ctx, f.path+".exclusive")
	case "ctx is not looked at", "the wait ignores ctx":
		ctx = context.WithoutCancel(ctx)
	}
	return f.lock.Acquire(ctx)
}

// exclusiveFile is the lock that a process that dies does not release.
func exclusiveFile(ctx context.Context, path string) (release func(), err error) {
	for {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			file.Close()
			return func() { _ = os.Remove(path) }, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (f *faulty) read() (oauth.Session, error) {
	data, err := os.ReadFile(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return oauth.Session{}, nil
	}
	if err != nil {
		return oauth.Session{}, err
	}
	return oauth.DecodeSession(data)
}

func (f *faulty) write(current, next oauth.Session) error {
	calls := f.calls.Add(1)
	switch {
	case f.is("the warning is forgotten"):
		next.Warning = ""
	case f.is("tokens are cut at 8000"):
		next.AccessToken = next.AccessToken[:min(len(next.AccessToken), 8000)]
	case f.is("unchanged means nothing to keep") && same(current, next) == nil:
		next = oauth.Session{}
	case f.is("every other write is late") && calls%2 == 0:
		return nil
	}
	if next.IsZero() {
		if f.is("a zero session is not stored") {
			return nil
		}
		if err := os.Remove(f.path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := next.Encode()
	if err != nil {
		return err
	}
	if f.is("the file is written in place") {
		return writeInPlace(f.path, data)
	}
	return durable.Replace(f.path, data, 0o600)
}

// writeInPlace is as slow as a disk can be.
func writeInPlace(path string, data []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, half := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		if _, err := file.Write(half); err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}
