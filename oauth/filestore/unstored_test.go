package filestore_test

import (
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// crossed seals with one key and opens with another.
type crossed struct{ cipher.AEAD }

func (crossed) Seal(dst, nonce, plain, associated []byte) []byte {
	return aead(9).Seal(dst, nonce, plain, associated)
}

// A process that could not store its session holds the only good refresh token. The others
// are told that the stored one may be spent, until a session is stored. What was written
// whole is not lost.
func TestUnstoredIsInDoubt(t *testing.T) {
	why := errors.New("the disk is gone")
	atStep := func(kind durable.OpKind, arrives func([]byte) []byte) func(durable.Op) error {
		return func(op durable.Op) error {
			if op.Kind != kind {
				return nil
			}
			if arrives != nil {
				return errors.Join(os.WriteFile(op.Path, arrives(op.Data), 0o600), why)
			}
			return why
		}
	}
	all := func(data []byte) []byte { return data }
	half := func(data []byte) []byte { return data[:len(data)/2] }
	with := func(change func(*oauth.Session)) oauth.Session {
		s := session(2)
		change(&s)
		return s
	}
	for name, tc := range map[string]struct {
		next    oauth.Session
		fails   func(durable.Op) error
		crossed bool
		found   uint64 // by the next Update; 1: in doubt
		text    string
	}{
		"not written":   {session(2), atStep(durable.Write, nil), false, 1, "could not be written"},
		"written half":  {session(2), atStep(durable.Write, half), false, 1, "could not be written"},
		"written whole": {session(2), atStep(durable.Write, all), false, 2, "is next to it"},
		"not flushed":   {session(2), atStep(durable.SyncFile, nil), false, 2, "is next to it"},
		"not renamed":   {session(2), atStep(durable.Rename, nil), false, 2, "is next to it"},
		"neither written nor emptied": {session(2), func(op durable.Op) error {
			if err := atStep(durable.Write, half)(op); err != nil {
				return err
			}
			if fi, err := os.Stat(op.Path); op.Kind == durable.Truncate && err == nil && fi.Size() < 8<<10 { // not that of the room
				return why
			}
			return nil
		}, false, 1, "could not be written"},
		"not encoded": {with(func(s *oauth.Session) {
			s.Expiry = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
		}), nil, false, 1, "could not be read back"},
		"no session": {with(func(s *oauth.Session) { s.Provider = "" }), nil, false, 1, "could not be read back"},
		"too large": {with(func(s *oauth.Session) {
			s.RefreshToken = oauth.Secret(strings.Repeat(secret, 2<<20))
		}), nil, false, 1, "could not be read back"},
		"sealed with another key": {session(2), nil, true, 1, "could not be read back"},
	} {
		for kind, opts := range stores {
			if tc.crossed && opts == nil { // nothing is sealed
				continue
			}
			t.Run(name+", "+kind, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "sessions")
				s := in(t, dir, opts...)
				put(t, s, session(1))
				sibling := in(t, dir, opts...)
				if tc.crossed {
					s = in(t, dir, filestore.WithSeal(crossed{aead(1)}))
				}
				var begun time.Time
				restore := durable.SetHook(&durable.Hook{Before: tc.fails})
				before := time.Now()
				err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
					begun = time.Now()
					return tc.next, nil
				})
				restore()
				var e *filestore.Error
				if !errors.As(err, &e) || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "SECRET") {
					t.Errorf("got %v, want a *filestore.Error with %q", err, tc.text)
				}
				for range 2 { // it is reported until the session changes
					err = sibling.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
						since, doubt := sibling.Interrupted()
						if current.Generation != tc.found || doubt != (tc.found == 1) {
							t.Errorf("the sibling finds generation %d, in doubt %v, want %d", current.Generation, doubt, tc.found)
						}
						if slack := 2 * time.Second; doubt && (since.Before(before.Add(-slack)) || since.After(begun.Add(slack))) {
							t.Errorf("in doubt since %v, and the Update began between %v and %v", since, before, begun)
						}
						return current, nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				put(t, in(t, dir, opts...), session(3)) // the process tries again
				if _, err := os.Stat(next(s)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the mark stays after the session was stored: %v", err)
				}
				err = sibling.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
					if _, doubt := sibling.Interrupted(); doubt {
						t.Error("in doubt after the session was stored")
					}
					return current, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A removal that fails takes nothing from what is known of an earlier Update.
func TestFailedRemovalKeepsDoubt(t *testing.T) {
	why := errors.New("the disk is gone")
	s := filled(t)
	begun := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := errors.Join(os.WriteFile(next(s), nil, 0o600), os.Chtimes(next(s), begun, begun)); err != nil {
		t.Fatal(err)
	}
	restore := durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
		if op.Kind == durable.Unlink && op.Path == s.Path() {
			return why
		}
		return nil
	}})
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, nil })
	restore()
	if !errors.Is(err, why) {
		t.Fatalf("got %v, want the step's error", err)
	}
	err = s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
		if since, doubt := s.Interrupted(); current.Generation != 1 || !doubt || !since.Equal(begun) {
			t.Errorf("generation %d, in doubt %v since %v", current.Generation, doubt, since)
		}
		return current, nil
	})
	if err != nil {
		t.Error(err)
	}
}

// One client cannot store what it renewed. Another one, whose token is stale and good for
// an hour yet, does not send the spent refresh token, which would end the session.
func TestSiblingOfFailedWriteWaits(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "sessions")
	client := func() *oauth.Client {
		t.Helper()
		config := srv.OAuthConfig(prover)
		config.Store = in(t, dir)
		config.Synchronous = true
		c, err := oauth.New(config)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := client(), client()
	defer a.TokenSource().Close()
	if _, err := a.Login(t.Context(), oauth.LoginOptions{OpenURL: srv.OpenURL}); err != nil {
		t.Fatal(err)
	}
	restore := durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
		if op.Kind == durable.Write {
			return errors.New("the disk is gone")
		}
		return nil
	}})
	defer restore()
	srv.Advance(11 * time.Hour) // stale, and an hour to live
	if _, err := b.TokenSource().Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.TokenSource().Token(); err != nil {
		t.Errorf("a has a token for an hour yet: %v", err)
	}
	if n := srv.Count(iamtest.EndpointToken, "refresh_token"); n != 1 || srv.LiveGrants() != 1 {
		t.Errorf("%d refresh tokens were sent and %d grants live, want one each", n, srv.LiveGrants())
	}
	restore()
	if err := b.TokenSource().Close(); err != nil { // it saves at last
		t.Fatal(err)
	}
	if _, err := a.TokenSource().Renew(t.Context()); err != nil {
		t.Errorf("once the session is stored: %v", err)
	}
	if srv.LiveGrants() != 1 {
		t.Error("the session has ended")
	}
}

// strict rotates and ends the session when a refresh token comes a second time.
type strict struct {
	mu    sync.Mutex
	n     int
	ended bool
}

func (s *strict) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = s.ended || form.Get("refresh_token") != fmt.Sprint("rt-", s.n)
	status, text := http.StatusBadRequest, `{"error":"invalid_grant"}`
	if !s.ended {
		s.n++
		status = http.StatusOK
		text = fmt.Sprintf(`{"access_token":"at-%d","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-%[1]d"}`, s.n)
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)),
	}, nil
}

// One client cannot store what it renewed, and tries again. Another one, which has no token,
// leaves it the time for that.
func TestSiblingOfFailedWriteHasGrace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	var fails atomic.Int32
	restore := durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
		if op.Kind == durable.Write && fails.Add(-1) >= 0 {
			return errors.New("the disk is gone")
		}
		return nil
	}})
	defer restore()
	for name, tt := range map[string]struct {
		fails int32
		force bool // the sibling renews whatever there is
	}{
		"once": {1, false}, "twice": {2, false}, "once, and Renew": {1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := new(strict)
				client := func() *oauth.Client {
					c, err := oauth.New(oauth.Config{
						Provider: oauth.Provider{Name: "srv", TokenURL: "https://auth.example/token", CallbackPath: "/cb"},
						ClientID: "cli", Store: in(t, dir), HTTPClient: &http.Client{Transport: srv},
					})
					if err != nil {
						t.Fatal(err)
					}
					return c
				}
				a, b := client(), client()
				if err := a.Import(t.Context(), "rt-0"); err != nil {
					t.Fatal(err)
				}
				fails.Store(tt.fails)
				if _, err := a.TokenSource().Token(); err != nil {
					t.Fatal(err)
				}
				ask := b.TokenSource().TokenContext
				if tt.force {
					ask = b.TokenSource().Renew
				}
				if _, err := ask(t.Context()); err != nil {
					t.Error(err)
				}
				if srv.ended {
					t.Error("the session was lost, although its new refresh token was in the memory of a process that ran all the time")
				}
				for _, c := range []*oauth.Client{a, b} {
					if err := c.TokenSource().Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}
