package keyringstore

import (
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/zalando/go-keyring"
)

// fake is a keyring in memory, with faults.
type fake struct {
	// before is called before each call, outside of the lock. An error is
	// returned in the call's place. Optional.
	before func(op, user string) error

	mu    sync.Mutex
	items map[string]string // by user
}

func newFake() *fake { return &fake{items: map[string]string{}} }

func (f *fake) fault(op, user string) error {
	if f.before == nil {
		return nil
	}
	return f.before(op, user)
}

func (f *fake) Get(_, user string) (string, error) {
	if err := f.fault("get", user); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	value, ok := f.items[user]
	if !ok {
		return "", keyring.ErrNotFound
	}
	return value, nil
}

func (f *fake) Set(_, user, password string) error {
	if err := f.fault("set", user); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items[user] = password
	return nil
}

func (f *fake) Delete(_, user string) error {
	if err := f.fault("delete", user); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.items[user]; !ok {
		return keyring.ErrNotFound
	}
	delete(f.items, user)
	return nil
}

func (f *fake) clone() *fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &fake{items: maps.Clone(f.items)}
}

// users returns the names of all items, sorted.
func (f *fake) users() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.items))
}

// on returns items in the fake, with room for 2048 bytes each.
func (f *fake) on() items {
	return items{ring: f, limit: smallItem, service: "app", profile: "default"}
}

// open returns a store on the fake, which may have 4 calls at once.
func (f *fake) open(t *testing.T, opts Options) *Store {
	t.Helper()
	if opts.LockDir == "" {
		opts.LockDir = t.TempDir() + "/locks"
	}
	s, err := newStore(f.on(), opts, make(chan struct{}, 4))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
