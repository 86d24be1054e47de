package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/durable/powerloss"
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
	"fn is not waited for":             "ctx ends in fn",
	"there is no lock":                 "100 goroutines",
	"the lock is the value's own":      "several values",
	"the lock is the process's own":    "several processes",
	"Load reads once":                  "visible to processes",
	"the process owns the lock alone":  "locked by a process",
	"a lock file stays":                "killed with the lock",
	"the file is written in place":     "killed while writing",
	"every other write is late":        "killed while writing",
	"Load ignores ctx":                 "ctx ended before",
	"the scopes are the caller's":      "copies",
	"a write error is swallowed":       "broken",
	"the file is not synced":           "power failure",
	"the directory is not synced":      "power failure",
	"the lock is a lease of 300 ms":    "stopped with the lock",
}

// withHook are the faults whose checks use the one hook of package durable.
var withHook = []string{"a write error is swallowed", "the file is not synced", "the directory is not synced"}

func faultySubject(fault string) Subject {
	return Subject{
		Name:  "faulty: " + fault,
		Kills: 10,
		Open: func(place string) (oauth.Store, error) {
			return &faulty{fault: fault, path: place, lock: filelock.New(place + ".lock")}, nil
		},
		Break:     breakDisk,
		PowerLoss: func(t *testing.T, place string) func() string { return losePower(t, place, fault) },
	}
}

// breakDisk makes every write of this process fail.
func breakDisk(*testing.T, string) (mend func()) {
	return durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
		if op.Kind == durable.Write {
			return errors.New("the disk is full")
		}
		return nil
	}})
}

// losePower simulates it, with the fsyncs that a fault leaves out.
func losePower(t *testing.T, place, fault string) (cut func() string) {
	t.Helper()
	disk, stop, err := powerloss.Watch(filepath.Dir(place))
	if err != nil {
		t.Fatal(err)
	}
	return func() string {
		stop()
		steps := slices.DeleteFunc(disk.Steps(), func(op durable.Op) bool {
			return fault == "the file is not synced" && op.Kind == durable.SyncFile ||
				fault == "the directory is not synced" && op.Kind == durable.SyncDir
		})
		left := t.TempDir()
		if err := disk.Crash(steps, rand.New(rand.NewPCG(rand.Uint64(), 0)), left); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(left, filepath.Base(place))
	}
}

func TestMain(m *testing.M) {
	all := []Subject{faultySubject(""), chatty}
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
			if !slices.Contains(withHook, fault) {
				t.Parallel()
			}
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
	alias *oauth.Session
	calls atomic.Int32
}

func (f *faulty) is(fault string) bool { return f.fault == fault }

func (f *faulty) Load(ctx context.Context) (oauth.Session, error) {
	if ctx.Err() != nil && !f.is("Load ignores ctx") {
		return oauth.Session{}, ctx.Err()
	}
	if f.is("Load takes the lock") {
		release, err := f.lock.Acquire(ctx)
		if err != nil {
			return oauth.Session{}, err
		}
		defer release()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.alias != nil {
		return *f.alias, nil
	}
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
	if f.is("fn is not waited for") {
		call := fn
		fn = func(s oauth.Session) (next oauth.Session, err error) {
			done := make(chan struct{})
			var result oauth.Session
			var errFn error
			go func() {
				defer close(done)
				result, errFn = call(s)
			}()
			select {
			case <-done:
				return result, errFn
			case <-ctx.Done():
				return s, ctx.Err()
			}
		}
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
		return exclusiveFile(ctx, f.path+".exclusive", time.Hour)
	case "the lock is a lease of 300 ms":
		return exclusiveFile(ctx, f.path+".exclusive", 300*time.Millisecond)
	case "ctx is not looked at", "the wait ignores ctx":
		ctx = context.WithoutCancel(ctx)
	}
	return f.lock.Acquire(ctx)
}

// exclusiveFile is the lock that a process that dies does not release. Others take
// it when it is older than a lease.
func exclusiveFile(ctx context.Context, path string, lease time.Duration) (release func(), err error) {
	for {
		if fi, err := os.Stat(path); err == nil && time.Since(fi.ModTime()) > lease {
			_ = os.Remove(path)
		}
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
		if err := durable.Remove(f.path); !errors.Is(err, os.ErrNotExist) {
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
	if f.is("the scopes are the caller's") {
		f.mu.Lock()
		f.alias = &next
		f.mu.Unlock()
	}
	err = durable.Replace(f.path, data, 0o600)
	if f.is("a write error is swallowed") {
		return nil
	}
	return err
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
