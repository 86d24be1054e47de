package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// unsynced stores, and says that it did not.
type unsynced struct {
	faultyStore
	lie atomic.Bool
}

func (u *unsynced) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	err := u.faultyStore.Update(ctx, fn)
	if err == nil && u.lie.Load() {
		return errors.New("fsync: input/output error")
	}
	return err
}

// Random calls of clients that share a store: no refresh token is sent twice, nobody has
// to log in, and everybody ends with the tokens of the last login.
func TestRandomCalls(t *testing.T) {
	eachSeed(t, 40, func(seed uint64) {
		synctest.Test(t, func(t *testing.T) { randomCalls(t, seed) })
	})
}

func randomCalls(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	srv := newRotor([]int{3600, 600, 43200}[r.IntN(3)])
	mem := oauth.NewMemoryStore()
	n := 1 + r.IntN(3)
	saves := n == 1 // saves may fail only if nobody else uses what is stored meanwhile
	var log []string
	say := func(format string, args ...any) {
		log = append(log, time.Now().Format("15:04:05.0 ")+fmt.Sprintf(format, args...))
	}
	type process struct {
		c     *oauth.Client
		store *unsynced
		shift atomic.Int64
	}
	var all []*process
	start := func(p *process) {
		p.c, _ = clientOf(t, srv, p.store, func(cfg *oauth.Config) {
			cfg.Clock = func() time.Time { return time.Now().Add(time.Duration(p.shift.Load())) }
			cfg.Synchronous = r.IntN(3) == 0
		})
	}
	for range n {
		p := &process{store: &unsynced{faultyStore: faultyStore{Store: mem}}}
		start(p)
		all = append(all, p)
	}
	users, user := 1, "u1"
	if err := all[0].c.Import(t.Context(), srv.issue(user)); err != nil {
		t.Fatal(err)
	}
	fault := errors.New("store: input/output error")
	calls := 20 + r.IntN(60)
	for range calls {
		i := r.IntN(n)
		p := all[i]
		switch k := r.IntN(20); {
		case k < 5:
			tok, err := p.c.TokenSource().Token()
			say("%d token %v %v", i, tok != nil, err)
		case k < 7:
			_, err := p.c.TokenSource().Renew(t.Context())
			say("%d renew %v", i, err)
		case k < 8:
			if tok, err := p.c.TokenSource().Token(); err == nil {
				p.c.TokenSource().Invalidate(tok)
				say("%d invalidate", i)
			}
		case k < 9:
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(3))*time.Second)
			_, err := p.c.TokenSource().TokenContext(ctx)
			cancel()
			say("%d token with ctx %v", i, err)
		case k < 10 && r.IntN(3) == 0:
			p.store.fail(nil, nil, nil)
			p.store.lie.Store(false)
			err := p.c.TokenSource().Close()
			if err != nil {
				t.Fatalf("Close: %v\n%s", err, strings.Join(log, "\n"))
			}
			start(p)
			say("%d close and start", i)
		case k < 11:
			p.store.fail(fault, nil, nil)
			say("%d load fails", i)
		case k < 12:
			p.store.fail(nil, fault, nil)
			say("%d update fails", i)
		case k < 13 && saves:
			p.store.fail(nil, nil, fault)
			say("%d save fails", i)
		case k < 14 && saves:
			p.store.lie.Store(!p.store.lie.Load())
			say("%d lie %v", i, p.store.lie.Load())
		case k < 15:
			p.store.fail(nil, nil, nil)
			say("%d healed", i)
		case k < 16 && r.IntN(4) == 0:
			users++
			next := fmt.Sprintf("u%d", users)
			rt := srv.issue(next)
			err := p.c.Import(t.Context(), rt)
			s, _ := mem.Load(t.Context())
			if err == nil || s.RefreshToken == rt {
				user = next
			}
			say("%d import %s %v", i, next, err)
		case k < 17 && r.IntN(4) == 0 && n == 1:
			p.shift.Add(int64(r.IntN(7200)-3600) * int64(time.Second))
			say("%d clock %v", i, time.Duration(p.shift.Load()))
		case k < 18 && r.IntN(3) == 0:
			code := []int{500, 503, 429, 401}[r.IntN(4)]
			left := 1 + r.IntN(3)
			if code == 500 { // its outcome is unknown
				code = 503
			}
			srv.mu.Lock()
			srv.answer = func(url.Values) (*http.Response, error) {
				if left--; left < 0 {
					return nil, nil
				}
				return jsonResponse(code, nil, map[string]any{"error": "temporarily_unavailable"}), nil
			}
			srv.mu.Unlock()
			say("server says %d", code)
		default:
			d := time.Duration(r.IntN(1+srv.life)) * time.Second / time.Duration(1+r.IntN(50))
			time.Sleep(d)
			say("slept %v", d)
		}
		if r.IntN(3) == 0 {
			synctest.Wait()
		}
	}
	for _, p := range all {
		p.store.fail(nil, nil, nil)
		p.store.lie.Store(false)
	}
	srv.answers(nil)
	for range 5 {
		for _, p := range all {
			_, _ = p.c.TokenSource().Token()
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
	}
	for i, p := range all {
		tok, err := p.c.TokenSource().Token()
		if err != nil || !strings.HasPrefix(tok.AccessToken, "at-"+user+"-") {
			t.Errorf("seed %d: process %d has %v, %v; want one of %s", seed, i, tok, err, user)
		}
	}
	for rt, sent := range srv.spent {
		if sent > 1 {
			t.Errorf("seed %d: %s was sent %d times", seed, rt, sent)
		}
	}
	if s, err := mem.Load(t.Context()); err != nil || srv.users[s.RefreshToken.Reveal()] != user || srv.spent[s.RefreshToken.Reveal()] > 0 {
		t.Errorf("seed %d: stored %s, %v", seed, s.RefreshToken.Reveal(), err)
	}
	for _, p := range all {
		if err := p.c.TokenSource().Close(); err != nil {
			t.Errorf("seed %d: Close: %v", seed, err)
		}
	}
	if t.Failed() {
		t.Log("\n" + strings.Join(log, "\n"))
	}
}
