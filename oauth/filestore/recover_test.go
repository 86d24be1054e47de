package filestore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/durable/powerloss"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// stores are the ways to keep a session in a file.
var stores = map[string][]filestore.Option{
	"plain":  nil,
	"sealed": {filestore.WithSeal(aead(1))},
}

// in opens a store in a directory.
func in(t testing.TB, dir string, opts ...filestore.Option) *filestore.Store {
	t.Helper()
	s, err := filestore.New(dir, "default", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func next(s *filestore.Store) string { return strings.TrimSuffix(s.Path(), ".json") + ".next" }

func kinds(ops []durable.Op) (kinds []string) {
	for _, op := range ops {
		kinds = append(kinds, strings.TrimSpace(string(op.Kind)+" "+strings.TrimPrefix(filepath.Ext(op.Path), ".")))
	}
	return kinds
}

// The next file is open, with room, before fn is called, and what follows fn has this order.
func TestOrder(t *testing.T) {
	for name, opts := range stores {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "sessions")
			s := in(t, dir, opts...)
			put(t, s, session(1))
			var before int
			for _, tc := range []struct {
				name string
				next oauth.Session
				err  error
				want []string
			}{
				{"a change", session(2), nil, []string{"write next", "fsync next", "rename next", "fsync directory"}},
				{"none", session(2), nil, []string{"unlink next", "fsync directory"}},
				{"an error", session(3), errors.New("refused"), []string{"unlink next"}},
				{"a removal", oauth.Session{}, nil, []string{"unlink json", "fsync directory", "unlink next"}},
			} {
				disk, stop, err := powerloss.Watch(dir)
				if err != nil {
					t.Fatal(err)
				}
				err = s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
					before = len(disk.Steps())
					return tc.next, tc.err
				})
				stop()
				if !errors.Is(err, tc.err) {
					t.Fatal(err)
				}
				want := slices.Concat([]string{"open next", "probe next", "truncate next", "reserve next", "|"}, tc.want)
				if got := slices.Insert(kinds(disk.Steps()), before, "|"); !slices.Equal(got, want) {
					t.Errorf("%s: the steps are %q, want %q", tc.name, got, want)
				}
			}
		})
	}
}

// A directory with many profiles is as fast as one with one: it is not listed.
func TestManyProfiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // there a directory that cannot be listed is another matter
	}
	s := filled(t)
	dir := filepath.Dir(s.Path())
	if err := os.WriteFile(filepath.Join(dir, ".default.json.tmp-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, s, session(2))
	if _, err := os.Stat(filepath.Join(dir, ".default.json.tmp-1")); err != nil {
		t.Errorf("Update listed the directory: %v", err)
	}
}

// Whatever lies in the next file, the session is the old one or a whole newer
// one.
func TestLeft(t *testing.T) {
	for name, opts := range stores {
		t.Run(name, func(t *testing.T) {
			content := map[uint64][]byte{}
			for g := range uint64(4) {
				if g == 0 {
					continue
				}
				s := in(t, filepath.Join(t.TempDir(), "sessions"), opts...)
				put(t, s, session(g))
				data, err := os.ReadFile(s.Path())
				if err != nil {
					t.Fatal(err)
				}
				content[g] = data
			}
			for _, tc := range []struct {
				name        string
				left        []byte // nil: no file
				want        uint64
				interrupted bool
			}{
				{"nothing", nil, 2, false},
				{"empty", []byte{}, 2, true},
				{"cut off", content[3][:len(content[3])-1], 2, true},
				{"zeros", make([]byte, len(content[3])), 2, true},
				{"something else", []byte("hello"), 2, true},
				{"older", content[1], 2, false},
				{"the same", content[2], 2, false},
				{"newer", content[3], 3, false},
			} {
				t.Run(tc.name, func(t *testing.T) {
					dir := filepath.Join(t.TempDir(), "sessions")
					s := in(t, dir, opts...)
					put(t, s, session(2))
					begun := time.Now().Add(-time.Hour).Truncate(time.Second)
					if tc.left != nil {
						if err := os.WriteFile(next(s), tc.left, 0o600); err != nil {
							t.Fatal(err)
						}
						if err := os.Chtimes(next(s), begun, begun); err != nil {
							t.Fatal(err)
						}
					}
					if got, err := s.Load(t.Context()); err != nil || got.Generation != 2 {
						t.Errorf("Load gives generation %d, %v, without the lock", got.Generation, err)
					}
					for range 2 { // it is reported until the session changes
						err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
							if current.Generation != tc.want {
								t.Errorf("fn gets generation %d, want %d", current.Generation, tc.want)
							}
							since, ok := s.Interrupted()
							if ok != tc.interrupted || ok && !since.Equal(begun) {
								t.Errorf("interrupted: %v since %v, want %v since %v", ok, since, tc.interrupted, begun)
							}
							return current, nil
						})
						if err != nil {
							t.Fatal(err)
						}
						if got, err := s.Load(t.Context()); err != nil || got.Generation != tc.want {
							t.Errorf("then Load gives generation %d, %v, want %d", got.Generation, err, tc.want)
						}
					}
					if _, ok := s.Interrupted(); ok {
						t.Error("reported outside of fn")
					}
					put(t, s, session(4))
					err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
						if _, ok := s.Interrupted(); ok || current.Generation != 4 {
							t.Errorf("after a change: interrupted %v, generation %d", ok, current.Generation)
						}
						return current, nil
					})
					if err != nil {
						t.Fatal(err)
					}
					if _, err := os.Stat(next(s)); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("the next file is still there: %v", err)
					}
				})
			}
		})
	}
}

// The first session of all is recovered, too.
func TestLeftWithoutSession(t *testing.T) {
	s := filled(t)
	if err := os.Rename(s.Path(), next(s)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
		t.Errorf("before an Update: %v does not match ErrNoSession", err)
	}
	err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) { return current, nil })
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context()); err != nil || got.Generation != 1 {
		t.Errorf("got generation %d, %v, want 1", got.Generation, err)
	}
}

// leave writes session 2 beside session 1, as a process does that is killed before it
// renames the file.
func leave(t *testing.T, s *filestore.Store) {
	t.Helper()
	two, err := session(2).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(next(s), two, 0o600); err != nil {
		t.Fatal(err)
	}
}

// found is the generation that the next Update finds.
func found(t *testing.T, s *filestore.Store) (generation uint64) {
	t.Helper()
	err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
		generation = current.Generation
		return current, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return generation
}

// A session that was left and cannot be saved now stays as it is, whatever fails: it
// can be the only copy of a refresh token.
func TestLeftAndDiskFails(t *testing.T) {
	why := errors.New("the disk is gone")
	for _, kind := range []durable.OpKind{durable.OpenFile, durable.Write, durable.SyncFile, durable.Rename} {
		t.Run(string(kind), func(t *testing.T) {
			s := filled(t)
			leave(t, s)
			for range 2 {
				restore := durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
					if op.Kind == kind {
						return why
					}
					return nil
				}})
				err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
					t.Error("Update called fn")
					return session(9), nil
				})
				restore()
				var e *filestore.Error
				if !errors.As(err, &e) || !errors.Is(err, why) {
					t.Errorf("got %v, want a *filestore.Error", err)
				}
				if kind != durable.OpenFile && !strings.Contains(err.Error(), "is next to it") {
					t.Errorf("%v does not say where the new session is", err)
				}
			}
			if g := found(t, s); g != 2 {
				t.Errorf("the next Update finds generation %d, want 2", g)
			}
		})
	}
}

// An interruption is reported whatever the file's time is: a clock that was never set
// says 1970-01-01.
func TestInterruptedAtAnyTime(t *testing.T) {
	for _, begun := range []time.Time{time.Unix(0, 0), time.Unix(-3600, 0), time.Unix(1, 0)} {
		t.Run(begun.UTC().Format(time.RFC3339), func(t *testing.T) {
			s := filled(t)
			if err := errors.Join(os.WriteFile(next(s), nil, 0o600), os.Chtimes(next(s), begun, begun)); err != nil {
				t.Fatal(err)
			}
			for range 2 { // it stays, with its time
				err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
					if since, ok := s.Interrupted(); !ok || !since.Equal(begun) {
						t.Errorf("interrupted: %v since %v, want true since %v", ok, since, begun)
					}
					return current, nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, ok := s.Interrupted(); ok {
				t.Error("reported outside of fn")
			}
		})
	}
}

// Doubt that an fn reports is doubt for the next one.
func TestOutcomeUnknown(t *testing.T) {
	s := filled(t)
	lost := fmt.Errorf("lost: %w", oauth.ErrOutcomeUnknown)
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, lost })
	if !errors.Is(err, lost) {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
			if since, ok := s.Interrupted(); !ok || time.Since(since) > time.Minute {
				t.Errorf("interrupted: %v since %v", ok, since)
			}
			panic("in the middle")
		})
	}()
	err = s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
		if _, ok := s.Interrupted(); !ok || current.Generation != 1 {
			t.Errorf("after a panic: interrupted: %v, generation %d", ok, current.Generation)
		}
		return current, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A session that was discarded or removed does not come back.
func TestRemovedForGood(t *testing.T) {
	s := filled(t)
	two, err := session(2).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, remove := range map[string]func() error{
		"Discard": func() error { return s.Discard(t.Context()) },
		"Update": func() error {
			return s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, nil })
		},
	} {
		if err := os.WriteFile(next(s), two, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
			if !current.IsZero() {
				t.Errorf("after %s there is generation %d", name, current.Generation)
			}
			return current, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What an error says of the old session and the new one is true.
func TestErrorTellsTheState(t *testing.T) {
	why := errors.New("the disk is gone")
	for _, tc := range []struct {
		kind        durable.OpKind
		text        string
		load, found uint64 // what Load finds, and what the next Update finds
	}{
		{durable.Write, "still has the old session", 1, 1},
		{durable.SyncFile, "still has the old session; the new one is next to it", 1, 2},
		{durable.Rename, "still has the old session; the new one is next to it", 1, 2},
		{durable.SyncDir, "has the new session, but may lose it", 2, 2},
	} {
		t.Run(string(tc.kind), func(t *testing.T) {
			s := filled(t)
			restore := durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
				if op.Kind == tc.kind {
					return why
				}
				return nil
			}})
			err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return session(2), nil })
			restore()
			var e *filestore.Error
			if !errors.As(err, &e) || !errors.Is(err, why) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %q", err, tc.text)
			}
			if got := errors.Is(err, filestore.ErrNotSynced); got != (tc.load == 2) {
				t.Errorf("%v matches ErrNotSynced: %v, and Load finds generation %d", err, got, tc.load)
			}
			if got, err := s.Load(t.Context()); err != nil || got.Generation != tc.load {
				t.Errorf("Load finds generation %d, %v, want %d", got.Generation, err, tc.load)
			}
			err = s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
				if current.Generation != tc.found {
					t.Errorf("Update finds generation %d, want %d", current.Generation, tc.found)
				}
				return current, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	s := filled(t)
	defer durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
		if op.Kind == durable.SyncDir {
			return why
		}
		return nil
	}})()
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, nil })
	if !errors.Is(err, why) || !errors.Is(err, filestore.ErrNotSynced) || !strings.Contains(err.Error(), "may reappear") {
		t.Errorf("a removal: got %v", err)
	}
}

// An fsync of the directory that failed, or did not come because the process died, is made
// up for by the next Update that returns nil, though it changes nothing.
func TestNotSyncedIsSyncedLater(t *testing.T) {
	why := errors.New("the disk is busy")
	for name, next := range map[string]oauth.Session{"a change": session(2), "a removal": {}} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				s := filled(t)
				disk, stop, err := powerloss.Watch(filepath.Dir(s.Path()))
				if err != nil {
					t.Fatal(err)
				}
				stop()
				var steps []durable.Op
				fails := true
				restore := durable.SetHook(&durable.Hook{
					Before: func(op durable.Op) error {
						if fails && op.Kind == durable.SyncDir {
							return why
						}
						return nil
					},
					After: func(op durable.Op) { op.Data = bytes.Clone(op.Data); steps = append(steps, op) },
				})
				change := func(oauth.Session) (oauth.Session, error) { return next, nil }
				for range 2 { // the error stays for as long as its cause does
					if err := s.Update(t.Context(), change); !errors.Is(err, filestore.ErrNotSynced) {
						t.Errorf("got %v, want ErrNotSynced", err)
					}
				}
				fails = false
				err = s.Update(t.Context(), change)
				restore()
				if err != nil {
					t.Fatal(err)
				}
				left := filepath.Join(t.TempDir(), "left")
				if err := disk.Crash(steps, rand.New(rand.NewPCG(seed, 0)), left); err != nil {
					t.Fatal(err)
				}
				if g := found(t, in(t, left)); g != next.Generation {
					t.Fatalf("after a failure of the power there is generation %d, want %d", g, next.Generation)
				}
			}
		})
	}
}

// Where the new session is in no file any more, the error does not say that it waits.
func TestDirectoryRemovedDuringUpdate(t *testing.T) {
	s := filled(t)
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		return session(2), os.RemoveAll(filepath.Dir(s.Path()))
	})
	var e *filestore.Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), "which is lost") || strings.Contains(err.Error(), "next to it") {
		t.Errorf("got %v", err)
	}
}

// A life is what a store went through, and after which steps it had promised
// what.
type life struct {
	disk     *powerloss.Disk
	promises []promise
}

type promise struct {
	steps      int    // so many steps had been taken when Update returned
	generation uint64 // 0: no session
}

// live records logins, renewals, an interruption, and removals.
func live(t *testing.T, opts []filestore.Option) (l life) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sessions")
	s := in(t, dir, opts...)
	put(t, s, session(1))
	put(t, s, oauth.Session{})
	disk, stop, err := powerloss.Watch(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	l.disk = disk
	promised := func(generation uint64) {
		l.promises = append(l.promises, promise{len(disk.Steps()), generation})
	}
	promised(0)
	for _, g := range []uint64{1, 2, 3, 0, 1, 2} {
		s = in(t, dir, opts...)
		if g == 0 {
			put(t, s, oauth.Session{})
		} else {
			put(t, s, session(g))
		}
		promised(g)
	}
	if err := s.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	promised(0)
	return l
}

// survives cuts the power after every step, many times, and says what a store
// finds that it should not.
func (l life) survives(t *testing.T, without func(i int) bool, opts []filestore.Option) error {
	t.Helper()
	all := l.disk.Steps()
	for seed := range uint64(6) {
		for n := range len(all) + 1 {
			var taken []durable.Op
			for i, op := range all[:n] {
				if !without(i) {
					taken = append(taken, op)
				}
			}
			dir := filepath.Join(t.TempDir(), "sessions")
			if err := l.disk.Crash(taken, rand.New(rand.NewPCG(seed, uint64(n))), dir); err != nil {
				t.Fatal(err)
			}
			if err := l.check(t, in(t, dir, opts...), n); err != nil {
				return fmt.Errorf("after %d of %d steps, the last one %q: %w", n, len(all), kinds(all[:n])[max(n-1, 0):], err)
			}
		}
	}
	return nil
}

// check looks at what is left after n steps: what was promised last, or what the
// next Update had begun to make of it.
func (l life) check(t *testing.T, s *filestore.Store, n int) error {
	t.Helper()
	i := 0
	for i+1 < len(l.promises) && l.promises[i+1].steps <= n {
		i++
	}
	allowed := []uint64{l.promises[i].generation}
	if i+1 < len(l.promises) {
		allowed = append(allowed, l.promises[i+1].generation)
	}
	got, err := s.Load(t.Context())
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return fmt.Errorf("Load: %w", err)
	}
	if !slices.Contains(allowed, got.Generation) {
		return fmt.Errorf("Load finds generation %d, want one of %d", got.Generation, allowed)
	}
	var found oauth.Session
	err = s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
		found = current
		return current, nil
	})
	if err != nil {
		return fmt.Errorf("Update: %w", err)
	}
	if !slices.Contains(allowed, found.Generation) {
		return fmt.Errorf("Update finds generation %d, want one of %d", found.Generation, allowed)
	}
	return nil
}

func TestPowerLoss(t *testing.T) {
	for name, opts := range stores {
		t.Run(name, func(t *testing.T) {
			l := live(t, opts)
			if err := l.survives(t, func(int) bool { return false }, opts); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without any one of its fsyncs a store loses what it promised, and the check of
// TestPowerLoss notices.
func TestPowerLossIsNoticed(t *testing.T) {
	l := live(t, nil)
	afterRename, afterUnlink := map[int]bool{}, map[int]bool{}
	all := l.disk.Steps()
	for i := 1; i < len(all); i++ {
		if all[i].Kind == durable.SyncDir {
			afterRename[i] = all[i-1].Kind == durable.Rename
			afterUnlink[i] = all[i-1].Kind == durable.Unlink
		}
	}
	for name, without := range map[string]func(i int) bool{
		"of the file":                   func(i int) bool { return all[i].Kind == durable.SyncFile },
		"of the directory, a change":    func(i int) bool { return afterRename[i] },
		"of the directory, the removal": func(i int) bool { return afterUnlink[i] },
	} {
		t.Run(name, func(t *testing.T) {
			removed := 0
			err := l.survives(t, func(i int) bool {
				if without(i) {
					removed++
				}
				return without(i)
			}, nil)
			if removed == 0 {
				t.Fatal("there is no such fsync")
			}
			if err == nil {
				t.Fatal("nobody notices")
			}
			t.Log(err)
		})
	}
}
