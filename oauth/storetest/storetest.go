// Package storetest tests the contract of [oauth.Store], with concurrent goroutines
// and processes that are stopped or killed.
//
// A test of a store needs a [Subject], a call of [Child] in TestMain, and a call of
// [Run]:
//
//	var subject = storetest.Subject{
//		Name: "mystore",
//		Open: func(place string) (oauth.Store, error) { return mystore.Open(place) },
//	}
//
//	func TestMain(m *testing.M) {
//		storetest.Child(subject)
//		os.Exit(m.Run())
//	}
//
//	func TestContract(t *testing.T) { storetest.Run(t, subject) }
//
// # Processes
//
// Run starts the test binary several more times, with an environment
// variable that Child looks for. Such a process opens the store, performs its role
// (it counts, holds the lock, or writes until it is killed) and exits. It also ends
// when the test does, however that ends. The standard output of the store is ignored.
//
// # Checks
//
// Every check is a subtest of Run:
//
//   - no session: Load's error matches oauth.ErrNoSession, Update's fn gets the
//     zero Session, and may return it
//   - a stored session comes back unchanged, from the same value, from others for
//     the same place and in other processes; large sessions too
//   - a zero Session removes the stored one; an unchanged one stays
//   - fn is called once; its error is returned unchanged, and nothing is stored;
//     a panic of fn propagates, stores nothing and releases the lock
//   - only one fn runs at a time, with 100 goroutines, several values and
//     several processes
//   - Load does not wait for an Update, in this process or another
//   - if ctx is canceled while Update waits for the lock, Update returns without fn
//   - if ctx is canceled while fn runs, Update waits for fn, and the result is still stored
//   - Load and Update return the error of a canceled ctx
//   - the Scopes of a session are not shared with callers
//   - a process that is stopped for Subject.Hold while it has the lock saves, or
//     gets an error; it never overwrites a session that another process saved
//   - the lock of a killed process is free, and nothing was stored
//   - a writer that is killed at random moments leaves a complete session, its
//     last or the one before, and a working store
//
// With Subject.Break and Subject.PowerLoss:
//
//   - a store that cannot write returns an error, and works again when it can
//   - after a power failure, the session that Update stored is still there
//
// The checks measure no time. They fail if a store hangs for minutes. A value
// that Open returned is closed after use if it is an io.Closer; a process has
// at most four open at the same time.
package storetest

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// A Subject is a Store to test.
type Subject struct {
	// Name identifies the subject in the test binary.
	Name string

	// Open returns a new Store for a place. Stores for the same place share one
	// session, also with other processes that open the place. Open is called in this
	// process and in others, from several goroutines.
	Open func(place string) (oauth.Store, error)

	// NewPlace returns a place without a session, for the duration of the test.
	// Optional. Default: an unused path in a temporary directory.
	NewPlace func(t *testing.T) string

	// Unshared is for a store whose values do not share a session: every value that
	// Open returns has its own. Checks that need several values or processes are
	// skipped, and the subject need not be passed to Child. Optional.
	Unshared bool

	// Kills is how often a writing process is killed. Optional. Default: 20.
	Kills int

	// Goroutines is how many Updates run at once in one process, at most. If a store
	// needs a connection for each, set the limit of its server. Optional.
	// Default: 100.
	Goroutines int

	// Hold is how long a process is stopped while it has the lock. If the
	// lock is a lease, set more than its duration, or its expiry is not
	// tested. Optional. Default: 1 second.
	Hold time.Duration

	// Break makes the place unwritable for Updates of stores in this process, even open
	// ones, until mend is called. Optional. Without it, write errors are not tested.
	Break func(t *testing.T, place string) (mend func())

	// PowerLoss starts to watch the place. A call of cut simulates a power failure,
	// and returns another place with the data that may be left. Optional.
	// Without it, power failures are not tested.
	PowerLoss func(t *testing.T, place string) (cut func() (left string))
}

// patience is how long a step may take that should take milliseconds.
const patience = 30 * time.Second

// Run runs all checks, each as a subtest with its own place.
func Run(t *testing.T, subject Subject) {
	t.Helper()
	if !subject.Unshared && !known(subject.Name) {
		t.Fatalf("storetest: TestMain does not call storetest.Child with the subject %q first: "+
			"the processes that Run starts would run all tests again", subject.Name)
	}
	for _, c := range checks {
		if c.shared && subject.Unshared || c.needs != nil && !c.needs(subject) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if err := newBench(t, subject).bounded(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A check looks at one property. It returns what is wrong.
type check struct {
	name   string
	shared bool // it takes several values or processes
	run    func(ctx context.Context, b *bench) error
	needs  func(Subject) bool // optional
}

func breaks(s Subject) bool     { return s.Break != nil }
func losesPower(s Subject) bool { return s.PowerLoss != nil }

var checks = []check{
	{"no session", false, checkNoSession, nil},
	{"round trip", false, checkRoundTrip, nil},
	{"large", false, checkLarge, nil},
	{"unchanged", false, checkUnchanged, nil},
	{"removal", false, checkRemoval, nil},
	{"error of fn", false, checkFnError, nil},
	{"panic of fn", false, checkFnPanic, nil},
	{"load during update", false, checkLoadDuringUpdate, nil},
	{"ctx ended before", false, checkEndedBefore, nil},
	{"ctx ends in the wait", false, checkEndsWaiting, nil},
	{"ctx ends in fn", false, checkEndsInFn, nil},
	{"copies", false, checkCopies, nil},
	{"broken", false, checkBroken, breaks},
	{"power failure", true, checkPowerFailure, losesPower},
	{"100 goroutines", false, checkGoroutines, nil},
	{"several values", true, checkValues, nil},
	{"several processes", true, checkProcesses, nil},
	{"visible to processes", true, checkVisible, nil},
	{"locked by a process", true, checkLockedByProcess, nil},
	{"stopped with the lock", true, checkOwnerStopped, nil},
	{"killed with the lock", true, checkOwnerKilled, nil},
	{"killed while writing", true, checkWriterKilled, nil},
}

// A bench is the place of one check, and what is needed around it.
type bench struct {
	subject  Subject
	place    string
	scratch  string // a directory for what is not the store's
	patience time.Duration
	hold     time.Duration
	value    oauth.Store // of an unshared subject: the one there is

	breakIt func() (mend func())
	watch   func() (cut func() (left string))

	mu     sync.Mutex
	opened []io.Closer

	background sync.WaitGroup // what must not outlast the check
}

func newBench(t *testing.T, subject Subject) *bench {
	t.Helper()
	b := &bench{subject: subject, scratch: t.TempDir(), patience: patience, hold: subject.Hold}
	if b.hold == 0 {
		b.hold = time.Second
	}
	b.breakIt = func() func() { return subject.Break(t, b.place) }
	b.watch = func() func() string { return subject.PowerLoss(t, b.place) }
	if subject.NewPlace != nil {
		b.place = subject.NewPlace(t)
	} else {
		b.place = filepath.Join(t.TempDir(), "store")
	}
	return b
}

// open returns a value for the place: another one at each call, if the subject
// can share.
func (b *bench) open() (oauth.Store, error) {
	if b.value != nil {
		return b.value, nil
	}
	s, err := b.openAt(b.place)
	if err == nil && b.subject.Unshared {
		b.value = s
	}
	return s, err
}

func (b *bench) openAt(place string) (oauth.Store, error) {
	s, err := b.subject.Open(place)
	if err == nil && s == nil {
		err = errors.New("it is nil")
	}
	if err != nil {
		return nil, failed("Open", err)
	}
	if c, ok := s.(io.Closer); ok {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.opened = append(b.opened, c)
	}
	return s, nil
}

// close closes all values, unless there is only one.
func (b *bench) close() error {
	if b.value != nil {
		return nil
	}
	return b.closeAll()
}

func (b *bench) closeAll() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.opened {
		if err := c.Close(); err != nil {
			return failed("Close", err)
		}
	}
	b.opened = nil
	return nil
}

// bounded runs a check that may hang.
func (b *bench) bounded(ctx context.Context, c check) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the processes, too
	result := make(chan error, 1)
	go func() {
		err := c.run(ctx, b)
		b.background.Wait()
		result <- errors.Join(err, b.closeAll())
	}()
	timer := time.NewTimer(4 * (b.patience + b.hold))
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
		return errHangs
	}
}

// within bounds a step that could hang.
func (b *bench) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.patience+b.hold, errHangs)
}

var errHangs = errors.New("it hangs")
