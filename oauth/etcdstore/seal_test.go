//go:build unix

package etcdstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ycauth/ycauth-go/oauth"
)

// valueAt is what etcd has at a key.
func valueAt(t *testing.T, client *clientv3.Client, key string) string {
	t.Helper()
	resp, err := client.Get(t.Context(), key)
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatal(key, resp, err)
	}
	return string(resp.Kvs[0].Value)
}

// What is not what was sealed does not open, and nothing overwrites it.
func TestAltered(t *testing.T) {
	t.Parallel()
	set, client := newSet(t, theServer(t), Options{Keys: keysOfVersions(1, 2)})
	elsewhere, _ := newSet(t, theServer(t), Options{Keys: keysOfVersions(1, 2)})
	for _, s := range []*Set{set, elsewhere} {
		put(t, s.Store("other"), session(2))
	}
	put(t, elsewhere.Store("k"), session(2))
	alter := func(change func(r *record)) func(session, base string) (string, string) {
		return func(session, base string) (string, string) {
			var r record
			if err := json.Unmarshal([]byte(session), &r); err != nil {
				t.Fatal(err)
			}
			change(&r)
			altered, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(altered), base
		}
	}
	from := func(s *Set, key string) func(_, _ string) (string, string) {
		return func(_, _ string) (string, string) {
			return valueAt(t, client, s.sessionKey(key)), valueAt(t, client, s.baseKey(key))
		}
	}
	for name, tc := range map[string]struct {
		change func(session, base string) (string, string) // "" for none
		want   error
		says   string
	}{
		"another key's":          {from(set, "other"), ErrSealKey, "Set.Delete"},
		"another prefix's":       {from(elsewhere, "k"), ErrSealKey, "SealedAs"},
		"a higher generation":    {alter(func(r *record) { r.Generation++ }), ErrSealKey, "Set.Delete"},
		"another version":        {alter(func(r *record) { r.KeyVersion = 1 }), ErrSealKey, "bring back the key"},
		"an unknown version":     {alter(func(r *record) { r.KeyVersion = 3 }), ErrKeyVersion, "version 3"},
		"a version out of range": {alter(func(r *record) { r.KeyVersion = 1<<32 + 2 }), ErrKeyVersion, "version 4294967298"},
		"in the clear":           {alter(func(r *record) { r.KeyVersion = 0 }), ErrInTheClear, "Options.InTheClear"},
		"one bit":                {alter(func(r *record) { r.Session[40] ^= 1 }), ErrSealKey, ""},
		"cut off":                {alter(func(r *record) { r.Session = r.Session[:20] }), ErrSealKey, ""},
		"empty":                  {alter(func(r *record) { r.Session = []byte{} }), ErrSealKey, ""},
		"a newer format":         {alter(func(r *record) { r.Format = 2 }), oauth.ErrSessionFormat, "newer release"},
		"no session in it":       {alter(func(r *record) { r.Session = nil }), oauth.ErrSessionFormat, ""},
		"not a record":           {func(_, b string) (string, string) { return "SECRET", b }, oauth.ErrSessionFormat, ""},
		"another refresh token":  {func(s, _ string) (string, string) { return s, "x" }, oauth.ErrSessionFormat, "beside"},
		"no base":                {func(s, _ string) (string, string) { return s, "" }, oauth.ErrSessionFormat, "beside"},
		"a base alone":           {func(_, b string) (string, string) { return "", b }, oauth.ErrSessionFormat, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := set.Delete(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			put(t, set.Store("k"), session(2))
			s, b := tc.change(valueAt(t, client, set.sessionKey("k")), valueAt(t, client, set.baseKey("k")))
			for key, value := range map[string]string{set.sessionKey("k"): s, set.baseKey("k"): b} {
				var err error
				if value == "" {
					_, err = client.Delete(t.Context(), key)
				} else {
					_, err = client.Put(t.Context(), key, value)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			before, err := client.Get(t.Context(), set.prefix, clientv3.WithPrefix())
			if err != nil {
				t.Fatal(err)
			}
			_, load := set.Store("k").Load(t.Context())
			update := set.Store("k").Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
				t.Error("fn was called")
				return session(3), nil
			})
			for what, err := range map[string]error{"Load": load, "Update": update} {
				var e *Error
				if !errors.Is(err, tc.want) || !errors.Is(err, oauth.ErrSessionFormat) || !errors.As(err, &e) || e.Temporary() ||
					!strings.Contains(err.Error(), tc.says) {
					t.Errorf("%s: %v", what, err)
				}
				noSecret(t, err)
			}
			after, err := client.Get(t.Context(), set.prefix, clientv3.WithPrefix())
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(after.Kvs) != fmt.Sprint(before.Kvs) {
				t.Error("something was changed, or the lease is held still")
			}
			// It is listed, and Reseal tells why it is left.
			for e, err := range set.List(t.Context()) {
				if e.Key == "" {
					t.Errorf("List: %v", err)
				}
			}
			if c, err := set.Count(t.Context()); err != nil || s != "" && c.Sessions != 2 {
				t.Errorf("Count: %+v, %v", c, err)
			}
			rotated := keysOfVersions(1, 2, 3)
			if name == "an unknown version" {
				rotated = keysOfVersions(1, 2, 4)
			}
			fresh, err := New(client, Options{Prefix: set.prefix, Keys: rotated})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fresh.reseal(t.Context(), "k"); !errors.Is(err, tc.want) {
				t.Errorf("Reseal: %v", err)
			}
		})
	}
}

// Keys are replaced while two processes use the set.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	c, prefix := theServer(t), newPrefix()
	first, client := newSet(t, c, Options{Prefix: prefix, Keys: keysOfVersions(1)})
	second, _ := newSet(t, c, Options{Prefix: prefix, Keys: keysOfVersions(1)})
	const n = page + 50
	fill(t, first, n)
	set := func(s *Set, keys Keys) {
		t.Helper()
		if err := s.SetKeys(keys); err != nil {
			t.Fatal(err)
		}
	}
	version := func(key string) int64 {
		t.Helper()
		r, err := recordOf([]byte(valueAt(t, client, first.sessionKey(key))))
		if err != nil {
			t.Fatal(err)
		}
		return r.KeyVersion
	}
	rotating := keysOfVersions(1, 2)
	rotating.Seal = 1
	set(first, rotating)
	set(second, rotating)
	put(t, first.Store("user 0000"), session(2))
	if v := version("user 0000"); v != 1 {
		t.Errorf("sealed with version %d before all know the new one", v)
	}
	set(first, keysOfVersions(1, 2))
	put(t, first.Store("user 0001"), session(2))
	if v := version("user 0001"); v != 2 {
		t.Errorf("sealed with version %d", v)
	}
	expect(t, second.Store("user 0001"), 2)
	set(second, keysOfVersions(1, 2))

	// The other process renews while the sessions are sealed anew.
	done := make(chan error, 1)
	go func() {
		for i := 2; i < n; i += 5 {
			if err := second.Store(fmt.Sprintf("user %04d", i)).UpdateLease(t.Context(), renewed(2)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	resealed, err := first.Reseal(t.Context())
	if err != nil || resealed == 0 || resealed > n-1 {
		t.Errorf("Reseal: %d, %v", resealed, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	counts, err := first.Count(t.Context())
	if err != nil || counts.KeyVersions[2] != n || len(counts.KeyVersions) != 1 {
		t.Errorf("Count: %+v, %v", counts, err)
	}
	set(second, keysOfVersions(2))
	for i := range n {
		generation := uint64(1)
		if i < 2 || i%5 == 2 {
			generation = 2
		}
		expect(t, second.Store(fmt.Sprintf("user %04d", i)), generation)
	}
	// A process that was forgotten says what it lacks.
	set(first, keysOfVersions(1))
	if _, err := first.Store("user 0001").Load(t.Context()); !errors.Is(err, ErrKeyVersion) {
		t.Errorf("Load: %v", err)
	}
}

// Reseal neither undoes a change nor touches a lease.
func TestResealDuringUpdate(t *testing.T) {
	set, _ := newSet(t, theServer(t), Options{Keys: keysOfVersions(1)})
	put(t, set.Store("k"), session(1))
	if err := set.SetKeys(keysOfVersions(1, 2)); err != nil {
		t.Fatal(err)
	}
	tapped := tap(set)
	tapped.on(once("reseal the session", func() { put(t, set.Store("k"), session(2)) }), nil)
	if n, err := set.Reseal(t.Context()); n != 0 || err != nil {
		t.Errorf("Reseal: %d, %v", n, err)
	}
	tapped.on(nil, nil)
	expect(t, set.Store("k"), 2)

	if err := set.SetKeys(keysOfVersions(2, 3)); err != nil {
		t.Fatal(err)
	}
	err := set.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
		if err := begin(l); err != nil {
			return oauth.Session{}, err
		}
		if n, err := set.Reseal(t.Context()); n != 1 || err != nil {
			t.Errorf("Reseal: %d, %v", n, err)
		}
		if got := inspect(t, set, "k"); !got.held || !got.marked {
			t.Errorf("etcd has %+v", got)
		}
		return session(3), nil
	})
	if err != nil {
		t.Error(err)
	}
	expect(t, set.Store("k"), 3)
}

// Sessions in the clear have to be asked for, and can be sealed later.
func TestInTheClear(t *testing.T) {
	plain, client := newSet(t, theServer(t), Options{InTheClear: true})
	put(t, plain.Store("k"), session(1))
	put(t, plain.Store("l"), session(1))
	expect(t, plain.Store("k"), 1)
	if n, err := plain.Reseal(t.Context()); n != 0 || err != nil {
		t.Errorf("Reseal: %d, %v", n, err)
	}
	sealing, err := New(client, Options{Prefix: plain.prefix, Keys: keysOfVersions(1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealing.Store("k").Load(t.Context()); !errors.Is(err, ErrInTheClear) {
		t.Errorf("Load: %v", err)
	}
	both, err := New(client, Options{Prefix: plain.prefix, Keys: keysOfVersions(1), InTheClear: true})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, both.Store("k"), 1)
	put(t, both.Store("k"), session(2))
	if n, err := both.Reseal(t.Context()); n != 1 || err != nil {
		t.Errorf("Reseal: %d, %v", n, err)
	}
	expect(t, sealing.Store("k"), 2)
	expect(t, sealing.Store("l"), 1)
	if _, err := plain.Store("k").Load(t.Context()); !errors.Is(err, ErrKeyVersion) {
		t.Errorf("Load: %v", err)
	}
	resp, err := client.Get(t.Context(), plain.prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		var r record
		if _ = json.Unmarshal(kv.Value, &r); strings.Contains(string(kv.Value)+string(r.Session), "SECRET") {
			t.Errorf("%s is in the clear", kv.Key)
		}
	}
}

// Sessions that were copied to another prefix can be read as what they were.
func TestSealedAs(t *testing.T) {
	set, client := newSet(t, theServer(t), Options{Prefix: "former"})
	put(t, set.Store("k"), session(1))
	for _, kind := range []string{"s/k", "b/k"} {
		if _, err := client.Put(t.Context(), "moved/"+kind, valueAt(t, client, "former/"+kind)); err != nil {
			t.Fatal(err)
		}
	}
	moved, err := New(client, Options{Prefix: "moved", Keys: keysOfVersions(1), SealedAs: "former"})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, moved.Store("k"), 1)
	other, err := New(client, Options{Prefix: "moved", Keys: keysOfVersions(1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Store("k").Load(t.Context()); !errors.Is(err, ErrSealKey) {
		t.Errorf("Load: %v", err)
	}
}
