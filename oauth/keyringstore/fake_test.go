package keyringstore

import (
	"sync"
	"testing"

	"github.com/zalando/go-keyring"
)

// fake is a keyring in memory, with faults.
type fake struct {
	// before is called before each call, outside of the lock. An error is
	// returned in the call's place. Optional.
	before func(op string) error

	// forgets makes Set keep nothing.
	forgets bool

	mu    sync.Mutex
	items map[string]string // by service
	sets  int
}

func newFake() *fake { return &fake{items: map[string]string{}} }

func (f *fake) fault(op string) error {
	if f.before == nil {
		return nil
	}
	return f.before(op)
}

func (f *fake) Get(service, _ string) (string, error) {
	if err := f.fault("get"); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	value, ok := f.items[service]
	if !ok {
		return "", keyring.ErrNotFound
	}
	return value, nil
}

func (f *fake) Set(service, _, password string) error {
	if err := f.fault("set"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sets++
	if !f.forgets {
		f.items[service] = password
	}
	return nil
}

// open returns the vault of the service "app", which may have 4 calls at once.
func (f *fake) open(t *testing.T, opts Options) *vault {
	t.Helper()
	if opts.LockDir == "" {
		opts.LockDir = t.TempDir() + "/locks"
	}
	v, err := newVault(f, "app", opts, make(chan struct{}, 4))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
