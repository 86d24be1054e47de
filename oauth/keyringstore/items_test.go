package keyringstore

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/zalando/go-keyring"

	"github.com/ycauth/ycauth-go/oauth"
)

// text is a session of some length, as far as items care: a JSON object.
func text(name string, length int) []byte {
	return fmt.Appendf(nil, `{"name":%q,"x":%q}`, name, strings.Repeat("x", length))
}

// names returns the items that a session in a slot has.
func names(data []byte, slot string) []string {
	if data == nil {
		return nil
	}
	all := []string{"default"}
	if len(data) > smallItem {
		for i := range (len(data) + smallItem - 1) / smallItem {
			all = append(all, fmt.Sprintf("default/%s/%d", slot, i))
		}
	}
	return all
}

func TestWriteAndRead(t *testing.T) {
	f := newFake()
	it := f.on()
	slot := ""
	for _, length := range []int{10, 5000, 2000, 2048, 9000, 3000, 3000, 120_000, 1} {
		data := text("n", length)
		if err := it.write(t.Context(), slot, data); err != nil {
			t.Fatalf("%d: %v", length, err)
		}
		found, err := it.read(t.Context())
		if err != nil || string(found.data) != string(data) {
			t.Fatalf("%d: read %d bytes, %v", length, len(found.data), err)
		}
		if want := names(data, found.slot); !slices.Equal(f.users(), slices.Sorted(slices.Values(want))) {
			t.Errorf("%d: items %v, want %v", length, f.users(), want)
		}
		for user, value := range f.items {
			if len(value) > smallItem {
				t.Errorf("%d: the item %s has %d bytes", length, user, len(value))
			}
		}
		slot = found.slot
	}
	if err := it.erase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := f.users(); len(left) != 0 {
		t.Errorf("left after erase: %v", left)
	}
	if _, err := it.read(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
		t.Errorf("after erase: %v", err)
	}
}

// Whatever call is the last one of a process, the session is the old one or the
// new one, and the next process leaves no item behind that is not of use.
func TestEveryCrash(t *testing.T) {
	sizes := map[string][]byte{
		"none": nil, "short": text("s", 10), "3 parts": text("3", 5000), "5 parts": text("5", 9000),
	}
	for before, old := range sizes {
		for after, next := range sizes {
			t.Run(before+" to "+after, func(t *testing.T) {
				start := newFake()
				if old != nil {
					store(t, start, old)
				}
				for calls := 0; crash(t, start.clone(), calls, old, next); calls++ {
				}
			})
		}
	}
}

// crash lets a process make some calls before it dies while it stores next. It
// reports whether the process died.
func crash(t *testing.T, f *fake, calls int, old, next []byte) bool {
	t.Helper()
	died := false
	dead := errors.New("dead")
	f.before = func(string, string) error {
		if died || calls == 0 {
			died = true
			return dead
		}
		calls--
		return nil
	}
	found, err := f.on().read(t.Context())
	if err == nil || errors.Is(err, oauth.ErrNoSession) {
		if next == nil {
			err = f.on().erase(t.Context())
		} else {
			err = f.on().write(t.Context(), found.slot, next)
		}
	}
	if err == nil && died && next == nil {
		t.Fatal("erase was cut off and did not say so")
	}
	f.before = nil
	found, readErr := f.on().read(t.Context())
	if readErr != nil && !errors.Is(readErr, oauth.ErrNoSession) {
		t.Fatalf("after the crash: %v", readErr)
	}
	got := string(found.data)
	if got != string(next) && (err == nil || got != string(old)) {
		t.Fatalf("after the crash (%v): %.40s, neither old nor new", err, got)
	}
	for _, last := range [][]byte{text("l", 2500), text("l", 100), nil} {
		store(t, f, last)
		found, err := f.on().read(t.Context())
		if last != nil && (err != nil || string(found.data) != string(last)) {
			t.Fatalf("the next process: %.40s, %v", found.data, err)
		}
		if want := names(last, found.slot); !slices.Equal(f.users(), slices.Sorted(slices.Values(want))) {
			t.Fatalf("the next process left %v, want %v", f.users(), want)
		}
	}
	return died
}

// store is what Update does, without a session's format.
func store(t *testing.T, f *fake, data []byte) {
	t.Helper()
	found, err := f.on().read(t.Context())
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		t.Fatal(err)
	}
	if data == nil {
		err = f.on().erase(t.Context())
	} else {
		err = f.on().write(t.Context(), found.slot, data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// While somebody reads the parts, others write: the reader finds one of the
// sessions, whole.
func TestReadDuringWrites(t *testing.T) {
	for _, next := range [][]byte{text("n", 10), text("n", 5000), nil} {
		for writes := range 4 {
			t.Run(fmt.Sprintf("%d writes of %d bytes", writes, len(next)), func(t *testing.T) {
				f := newFake()
				store(t, f, text("old", 5000))
				written := []string{string(text("old", 5000))}
				reader := &fake{items: f.items}
				reader.before = func(_, user string) error {
					if user == "default" || len(written) > 1 {
						return nil
					}
					for range writes {
						store(t, f, text(strconv.Itoa(len(written)), 5000))
						written = append(written, string(text(strconv.Itoa(len(written)), 5000)))
					}
					store(t, f, next)
					written = append(written, string(next))
					return nil
				}
				found, err := reader.on().read(t.Context())
				if next == nil && errors.Is(err, oauth.ErrNoSession) {
					return
				}
				if err != nil || !slices.Contains(written, string(found.data)) {
					t.Errorf("read %.40q, %v", found.data, err)
				}
			})
		}
	}
}

func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(items map[string]string){
		"a part is missing":       func(i map[string]string) { delete(i, "default/b/1") },
		"the last one is missing": func(i map[string]string) { delete(i, "default/b/2") },
		"a part has changed":      func(i map[string]string) { i["default/b/1"] = i["default/b/0"] },
		"a part is cut":           func(i map[string]string) { i["default/b/1"] = i["default/b/1"][1:] },
		"the head has changed": func(i map[string]string) {
			i["default"] = strings.Replace(i["default"], `"sha256":"`, `"sha256":"0`, 1)
		},
		"another slot":   func(i map[string]string) { i["default"] = strings.Replace(i["default"], `"b"`, `"c"`, 1) },
		"a wrong type":   func(i map[string]string) { i["default"] = strings.Replace(i["default"], `"b"`, `7`, 1) },
		"no parts":       func(i map[string]string) { i["default"] = strings.Replace(i["default"], `"parts":3`, `"parts":0`, 1) },
		"too many parts": func(i map[string]string) { i["default"] = strings.Replace(i["default"], `"parts":3`, `"parts":65`, 1) },
		"a newer version": func(i map[string]string) {
			i["default"] = strings.Replace(i["default"], `"version":1`, `"version":2`, 1)
		},
		"the head is cut":   func(i map[string]string) { i["default"] = i["default"][:9] },
		"the head is empty": func(i map[string]string) { i["default"] = "" },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			s := f.open(t, Options{})
			for generation := range uint64(2) { // the first in slot a, the second in b
				long := session(generation + 1)
				long.AccessToken = oauth.Secret(strings.Repeat("SECRET", 800))
				put(t, s, long)
			}
			damage(f.items)
			before := f.clone()
			refused(t, s, oauth.ErrSessionFormat, "call Store.Discard, and log in again")
			if !slices.Equal(before.users(), f.users()) || before.items["default"] != f.items["default"] {
				t.Error("what is damaged was changed")
			}
			if err := s.Discard(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
				t.Errorf("after Discard: %v", err)
			}
			put(t, s, session(2))
			if left := f.users(); len(left) != 1 {
				t.Errorf("after Discard and an Update: items %v", left)
			}
		})
	}
}

func TestItemsOfOthers(t *testing.T) {
	f := newFake()
	store(t, f, text("x", 1))
	again := &sticky{fake: f, times: 3}
	it := items{ring: again, limit: smallItem, service: "app", profile: "default"}
	if err := it.erase(t.Context()); err != nil || len(f.users()) != 0 {
		t.Errorf("three items of one name: %v, left: %v", err, f.users())
	}
	store(t, f, text("x", 1))
	again.times = 1000
	if err := it.erase(t.Context()); err == nil {
		t.Error("an item that cannot be removed goes unnoticed")
	}
	if err := it.write(t.Context(), "", text("y", 1)); err != nil {
		t.Error(err)
	}
}

// sticky has several items of the same name.
type sticky struct {
	*fake
	times int
}

func (s *sticky) Delete(service, user string) error {
	if s.times > 1 && slices.Contains(s.users(), user) {
		s.times--
		return nil
	}
	return s.fake.Delete(service, user)
}

// forgetful says that it keeps what it does not.
type forgetful struct{ *fake }

func (forgetful) Set(string, string, string) error { return nil }

func TestKeyringForgets(t *testing.T) {
	f := newFake()
	store(t, f, text("old", 1))
	it := items{ring: forgetful{f}, limit: smallItem, service: "app", profile: "default"}
	for _, length := range []int{1, 5000} {
		if err := it.write(t.Context(), "", text("new", length)); err == nil {
			t.Errorf("%d bytes that were not kept passed for stored", length)
		}
	}
	found, err := it.read(t.Context())
	if err != nil || string(found.data) != string(text("old", 1)) {
		t.Errorf("the old session: %s, %v", found.data, err)
	}
}

func TestCut(t *testing.T) {
	for _, s := range []string{
		"", "x", strings.Repeat("x", 100), strings.Repeat("é", 100), strings.Repeat("€", 100), strings.Repeat("😀", 100),
		"x" + strings.Repeat("😀", 100), strings.Repeat("\x80", 100),
	} {
		joined, rest := "", []byte(s)
		for len(rest) > 0 {
			n := cut(rest, 10)
			if n < 1 || n > 10 {
				t.Fatalf("%.20q: a part of %d bytes", s, n)
			}
			if utf8.ValidString(s) && !utf8.Valid(rest[:n]) {
				t.Errorf("%.20q: a character was cut", s)
			}
			joined, rest = joined+string(rest[:n]), rest[n:]
		}
		if joined != s {
			t.Errorf("%.20q: the parts are not the whole", s)
		}
	}
}

func TestErrorsOfCalls(t *testing.T) {
	broken := errors.New("broken")
	for _, op := range []string{"get", "set", "delete"} {
		f := newFake()
		it := f.on()
		store(t, f, text("3", 5000))
		for _, at := range []string{"default", "default/a/1", "default/b/1"} {
			f.before = func(o, user string) error {
				if o == op && user == at {
					return broken
				}
				return nil
			}
			for name, err := range map[string]error{
				"erase": it.erase(t.Context()), "write": it.write(t.Context(), "a", text("4", 6000)),
			} {
				var r *ringError
				if err != nil && (!errors.As(err, &r) || !errors.Is(err, broken) || errors.Is(err, keyring.ErrNotFound)) {
					t.Errorf("%s with %s of %s broken: %v", name, op, at, err)
				}
			}
		}
	}
}

func FuzzHead(f *testing.F) {
	f.Add([]byte(`{"version":1,"parts":3,"slot":"a","sha256":"00"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		ring := newFake()
		ring.items["default"] = string(value)
		found, err := ring.on().read(t.Context())
		switch {
		case err == nil && string(found.data) == string(value):
		case errors.Is(err, oauth.ErrSessionFormat) && !strings.Contains(err.Error(), "SECRET"):
		default:
			t.Errorf("read %q, %v", found.data, err)
		}
		if len(ring.items) != 1 || ring.items["default"] != string(value) {
			t.Error("reading changed the keyring")
		}
	})
}
