// Package storetest checks that a Store keeps the contract of [oauth.Store],
// with goroutines and with processes that exclude, see and survive each other.
//
// A test of a store is a [Subject], a call of [Child] in TestMain, and a call of
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
// Run starts the test binary again, several times over, with an environment
// variable that Child looks for. Such a process opens the store, plays its part
// (it counts, holds the lock, or writes until it is killed) and exits. It ends
// too when the test does, whatever way that ends. What the store prints to
// standard output is ignored.
//
// # What is checked
//
// Every check is a subtest of Run:
//
//   - no session: Load's error matches oauth.ErrNoSession, Update's fn gets the
//     zero Session, and can leave it so
//   - what is stored comes back as it was, from the same value, from others for
//     the same place and in other processes; large sessions too
//   - a zero Session removes; an unchanged one stays
//   - fn is called once; its error is returned as it is, and nothing is stored;
//     a panic of fn gets through, stores nothing and frees the lock
//   - fn runs in one place at a time: with 100 goroutines, several values and
//     several processes
//   - Load does not wait for an Update, in this process or another
//   - a ctx that ends while Update waits for the lock ends the wait, without fn
//   - a ctx that ends while fn runs does not keep the result from being stored
//   - Load and Update return the error of a ctx that has ended
//   - the Scopes of a session are not shared with callers
//   - a process that is stopped for Subject.Hold while it has the lock saves, or
//     is told that it did not; it never undoes what somebody else saved
//   - the lock of a process that is killed is free, and nothing was stored
//   - a writer that is killed at random moments leaves the session that it wrote
//     last or the one before, whole, and a store that works
//
// With Subject.Break and Subject.PowerLoss:
//
//   - a store that cannot write says so, and works again when it can
//   - what Update stored is there after a failure of the power
//
// The checks measure no time. They fail if a store hangs for minutes. A value
// that Open returned is closed after its use if it is an io.Closer; a process has
// four at most at the same time.
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

// A Subject is a Store to be checked.
type Subject struct {
	// Name tells the subjects of one test binary apart.
	Name string

	// Open returns a new Store for a place. Stores for the same place share one
	// session, also with processes that open the place. It is called in this
	// process and in others, from several goroutines.
	Open func(place string) (oauth.Store, error)

	// NewPlace returns a place that has no session, for the time of the test.
	// Optional. Default: a path in a temporary directory, where nothing is yet.
	NewPlace func(t *testing.T) string

	// Unshared is for a store that keeps its session to itself: every value that
	// Open returns has its own. What takes several values or processes is left
	// out, and Child need not know the subject. Optional.
	Unshared bool

	// Kills is how often a writing process is killed. Optional. Default: 20.
	Kills int

	// Goroutines is how many Updates run at once in one process, at most. A store
	// that takes a connection for each sets what its server allows. Optional.
	// Default: 100.
	Goroutines int

	// Hold is how long a process is stopped while it has the lock. A store whose
	// lock is a lease names more than the lease lasts, or the checks do not see
	// what happens when it runs out. Optional. Default: 1 second.
	Hold time.Duration

	// Break makes Updates of stores in this process, which may be open already,
	// unable to write to the place until mend is called. Optional: without it, it
	// is not checked what happens then.
	Break func(t *testing.T, place string) (mend func())

	// PowerLoss begins to watch the place. The power fails when cut is called,
	// which returns another place, with what a failure may leave. Optional:
	// without it, it is not checked what happens then.
	PowerLoss func(t *testing.T, place string) (cut func() (left string))
}

// patience is how long a step may take that should take milliseconds.
const patience = 30 * time.Second

// Run runs all checks, each as a subtest with a place of its own.
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
