package matrix

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// hurdles is a store whose every step can be changed. Its hooks are called one at a
// time, as Update is.
type hurdles struct {
	oauth.Store

	mu    sync.Mutex
	lock  func(ctx context.Context) // while the lock is waited for
	save  func() error              // before the session is stored
	saved func()                    // after it
}

// hooks are the present ones; set changes them.
func (h *hurdles) hooks() (lock func(context.Context), save func() error, saved func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lock, h.save, h.saved
}

func (h *hurdles) set(fn func(h *hurdles)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn(h)
}

func (h *hurdles) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	lock, save, saved := h.hooks()
	if lock != nil {
		lock(ctx)
	}
	err := h.Store.Update(ctx, func(s oauth.Session) (oauth.Session, error) {
		next, err := fn(s)
		if err == nil && save != nil {
			err = save()
		}
		return next, err
	})
	if err == nil && saved != nil {
		saved()
	}
	return err
}

// hazard is a user in a bubble of testing/synctest, who goes on with a session.
type hazard struct {
	t      *testing.T
	srv    *iamtest.Server
	store  *hurdles
	wire   *wire
	ahead  atomic.Int64 // of the client's clock, in nanoseconds
	prover *dpop.Prover
	client *oauth.Client
	http   *http.Client // to resources
}

// wire is the network, with a step between the response and the client, and with a
// resource of its own at /bad.
type wire struct {
	base     http.RoundTripper
	response func(r *http.Request)
	bad      func(n int64) *http.Response
	asked    atomic.Int64 // requests to /bad
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path == "/bad" {
		return w.bad(w.asked.Add(1)), nil
	}
	resp, err := w.base.RoundTrip(r)
	if w.response != nil && err == nil {
		w.response(r)
	}
	return resp, err
}

func refusal(status int, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader("")),
	}
}

// inHazard runs do in a bubble, with a session that has no access token yet.
func inHazard(t *testing.T, o iamtest.Options, do func(h *hazard)) {
	t.Helper()
	o.Rotation = iamtest.RotateAlways
	srv := iamtest.Start(t, o)
	synctest.Test(t, func(t *testing.T) {
		h := &hazard{t: t, srv: srv, prover: newProver(t), store: &hurdles{Store: oauth.NewMemoryStore()}, wire: &wire{base: srv.RoundTripper()}}
		h.open()
		jkt, err := h.prover.Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		token := srv.Seed(1, func(_ int, s *iamtest.Seed) { s.KeyThumbprint = jkt })[0]
		if err := h.client.Import(t.Context(), oauth.Secret(token)); err != nil {
			t.Fatal(err)
		}
		h.mustCall()
		do(h)
		if err := h.client.TokenSource().Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if n := srv.LiveGrants(); n != 1 {
			t.Errorf("%d grants live: the session is lost", n)
		}
	})
}

// open is a new process.
func (h *hazard) open() {
	h.t.Helper()
	cfg := h.srv.OAuthConfig(h.prover)
	cfg.Store, cfg.HTTPClient = h.store, &http.Client{Transport: h.wire}
	cfg.Clock = func() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) }
	var err error
	if h.client, err = oauth.New(cfg); err != nil {
		h.t.Fatal(err)
	}
	h.http = &http.Client{Transport: &dpop.Transport{Source: h.client.TokenSource(), Prover: h.prover, Base: h.wire, Clock: cfg.Clock}}
}

// call asks the resource at path.
func (h *hazard) call(path string) (status int, err error) {
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, h.srv.URL+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// mustCall: a caller gets a token that the server takes, and gets through with it.
func (h *hazard) mustCall() {
	h.t.Helper()
	tok, err := h.client.TokenSource().TokenContext(h.t.Context())
	if err != nil || h.srv.AccessTokenExpiry(tok.AccessToken).IsZero() {
		h.t.Errorf("after %v the token is dead, with the error %v", h.age(), err)
	}
	if status, err := h.call("/api/whoami"); err != nil || status != http.StatusOK {
		h.t.Errorf("after %v a caller got %d and %v", h.age(), status, err)
	}
	synctest.Wait()
}

// age is how long ago the bubble began.
func (h *hazard) age() time.Duration {
	return time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
}

func (h *hazard) asked() int { return h.srv.Count(iamtest.EndpointToken) }

// TestLateLock: the store's lock comes a moment before the time for the renewal is
// over, when no time is left for a response.
func TestLateLock(t *testing.T) {
	for _, moment := range []time.Duration{100 * time.Millisecond, time.Millisecond, time.Nanosecond} {
		t.Run(moment.String(), func(t *testing.T) {
			inHazard(t, iamtest.Options{}, func(h *hazard) {
				time.Sleep(20 * time.Hour)
				var late atomic.Bool
				h.store.set(func(s *hurdles) {
					s.lock = func(ctx context.Context) {
						if deadline, ok := ctx.Deadline(); ok && late.CompareAndSwap(false, true) {
							time.Sleep(time.Until(deadline) - moment)
						}
					}
				})
				h.srv.Inject(iamtest.EndpointToken, iamtest.Slow(500*time.Millisecond).AfterEffect(), 1)
				ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Minute)
				defer cancel()
				_, err := h.client.TokenSource().TokenContext(ctx)
				if errors.Is(err, oauth.ErrLoginRequired) {
					h.t.Errorf("the caller got %v", err)
				}
				if !late.Load() {
					h.t.Error("the lock was not late")
				}
				time.Sleep(5 * time.Minute)
				h.mustCall()
				time.Sleep(20 * time.Hour)
				h.mustCall()
			})
		})
	}
}

// TestClockJump: the clock jumps at each step of a renewal, stays wrong for two
// hours and is put right. That costs at most one wasted request each time, and
// nobody gets an error or a token that has expired.
func TestClockJump(t *testing.T) {
	steps := map[string]func(h *hazard, jump func()){
		"before the request": func(h *hazard, jump func()) { jump() },
		"between request and response": func(h *hazard, jump func()) {
			h.wire.response = func(r *http.Request) {
				if r.URL.Path == "/oauth/token" {
					jump()
				}
			}
		},
		"after the save": func(h *hazard, jump func()) { h.store.set(func(s *hurdles) { s.saved = jump }) },
	}
	for name, step := range steps {
		for _, by := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
			for _, tokenType := range []string{"Bearer", "DPoP"} {
				t.Run(fmt.Sprintf("%s, by %v, %s", name, by, tokenType), func(t *testing.T) {
					inHazard(t, iamtest.Options{TokenType: tokenType}, func(h *hazard) {
						time.Sleep(13 * time.Hour) // the token has expired
						before := h.asked()
						step(h, sync.OnceFunc(func() { h.ahead.Store(int64(by)) }))
						for range 12 {
							h.mustCall()
							time.Sleep(10 * time.Minute)
						}
						if h.ahead.Load() == 0 {
							h.t.Error("the clock did not jump")
						}
						h.ahead.Store(0)
						for range 6 {
							h.mustCall()
							time.Sleep(10 * time.Minute)
						}
						// One renewal, and one request for each time that the clock
						// jumped.
						if n := h.asked() - before; n > 3 {
							h.t.Errorf("%d token requests in three hours, want at most 3", n)
						}
						for range 25 { // a whole life of a token later all is well
							time.Sleep(time.Hour)
							h.mustCall()
						}
						if n := h.asked() - before; n > 7 {
							h.t.Errorf("%d token requests in 28 hours, want at most 7", n)
						}
					})
				})
			}
		}
	}
}

// TestTwoFailingSaves: of two rotations that the store did not take, the second one
// is the session.
func TestTwoFailingSaves(t *testing.T) {
	inHazard(t, iamtest.Options{}, func(h *hazard) {
		full := errors.New("no space left on device")
		h.store.set(func(s *hurdles) { s.save = func() error { return full } })
		for range 2 {
			time.Sleep(20 * time.Hour)
			h.mustCall()
		}
		h.store.set(func(s *hurdles) { s.save = nil })
		if err := h.client.TokenSource().Close(); err != nil {
			h.t.Errorf("Close: %v", err)
		}
		session, err := h.client.Session(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		if got := h.srv.Introspect(session.RefreshToken.Reveal()).State; got != iamtest.TokenCurrent {
			h.t.Errorf("the stored refresh token is %s", got)
		}
		h.open() // the next process
		time.Sleep(20 * time.Hour)
		h.mustCall()
	})
}

// TestSaveInBetween: a save of the first rotation waits for the lock while the
// second rotation fails to be saved. What is stored then must be the second.
func TestSaveInBetween(t *testing.T) {
	inHazard(t, iamtest.Options{}, func(h *hazard) {
		full := errors.New("no space left on device")
		var second, enough atomic.Bool
		h.store.set(func(s *hurdles) {
			s.save = func() error {
				if enough.Load() {
					return nil
				}
				enough.Store(second.Load())
				return full
			}
		})
		time.Sleep(20 * time.Hour)
		h.mustCall() // the first save fails, and is tried again after 1, 2, 4, 8, 16 and 32 seconds
		time.Sleep(55 * time.Second)
		second.Store(true)
		h.srv.Inject(iamtest.EndpointToken, iamtest.Slow(20*time.Second), 1)
		tok, err := h.client.TokenSource().TokenContext(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		h.client.TokenSource().Invalidate(tok)
		h.mustCall()
		time.Sleep(10 * time.Minute)
		if !enough.Load() {
			h.t.Error("no second save failed")
		}
		if err := h.client.TokenSource().Close(); err != nil {
			h.t.Errorf("Close: %v", err)
		}
		h.open() // the next process
		time.Sleep(20 * time.Hour)
		h.mustCall()
	})
}

// TestClockJumpInAnOutage: what is waited for while the clock is wrong is not
// waited for by the clock.
func TestClockJumpInAnOutage(t *testing.T) {
	for _, by := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			inHazard(t, iamtest.Options{}, func(h *hazard) {
				time.Sleep(13 * time.Hour)
				h.ahead.Store(int64(by))
				h.srv.Inject(iamtest.EndpointToken, iamtest.HTTPStatus(http.StatusServiceUnavailable, 0), -1)
				ctx, cancel := context.WithTimeout(h.t.Context(), 3*time.Minute)
				defer cancel()
				if _, err := h.client.TokenSource().TokenContext(ctx); err == nil {
					h.t.Error("there is a token")
				}
				h.srv.ClearFaults()
				h.ahead.Store(0)
				time.Sleep(2 * time.Minute)
				h.mustCall()
			})
		})
	}
}

// rejects is a resource that takes no token.
func rejects(int64) *http.Response {
	return refusal(http.StatusUnauthorized, "WWW-Authenticate", `Bearer error="invalid_token"`)
}

// crowd lets 1,000 goroutines call /bad every ten seconds, and one a good resource
// every second, for a while.
func (h *hazard) crowd(span time.Duration) {
	h.t.Helper()
	var all sync.WaitGroup
	end := time.Now().Add(span)
	for n := range 1000 {
		all.Go(func() {
			time.Sleep(time.Duration(n) * 10 * time.Millisecond)
			for time.Now().Before(end) {
				_, _ = h.call("/bad")
				time.Sleep(10 * time.Second)
			}
		})
	}
	for time.Now().Before(end) {
		if status, err := h.call("/api/whoami"); err != nil || status != http.StatusOK {
			h.t.Errorf("after %v the good resource's caller got %d and %v", h.age(), status, err)
			break
		}
		time.Sleep(time.Second)
	}
	all.Wait()
	synctest.Wait()
}

// TestRejectedForEver: a resource that takes no token costs at most one renewal for
// each refresh token and half a minute, and the others nothing.
func TestRejectedForEver(t *testing.T) {
	inHazard(t, iamtest.Options{}, func(h *hazard) {
		h.wire.bad = rejects
		before := h.asked()
		h.crowd(5 * time.Minute)
		if n := h.asked() - before; n > 11 {
			h.t.Errorf("%d token requests in 5 minutes, want at most 11", n)
		}
		if h.wire.asked.Load() < 30_000 {
			h.t.Errorf("the crowd made %d requests", h.wire.asked.Load())
		}
	})
}

// The most token requests in ten minutes while each one fails: renewals after 1, 2,
// 4, 8, 16, 32 and from then on 60 seconds, with 4 attempts each.
const failedRequests = 4 * (6 + 10)

// TestEverythingRefuses: resources reject the token, and the token endpoint is out
// of order as well. The token that they took before is still served to those who
// take it.
func TestEverythingRefuses(t *testing.T) {
	for name, out := range map[string]struct {
		statuses   []int
		retryAfter time.Duration
	}{
		"429":                   {[]int{429}, 0},
		"500":                   {[]int{500}, 0},
		"503":                   {[]int{503}, 0},
		"429 and 500 and 503":   {[]int{429, 500, 503}, 0},
		"503, with Retry-After": {[]int{503}, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inHazard(t, iamtest.Options{}, func(h *hazard) {
				h.wire.bad = rejects
				for range 200 {
					for _, status := range out.statuses {
						h.srv.Inject(iamtest.EndpointToken, iamtest.HTTPStatus(status, out.retryAfter), 1)
					}
				}
				before := h.asked()
				h.crowd(10 * time.Minute)
				n := h.asked() - before
				if n == 0 || n > failedRequests {
					h.t.Errorf("%d token requests in ten minutes, want at most %d", n, failedRequests)
				}
				h.spaced(out.retryAfter)
				h.srv.ClearFaults()
				time.Sleep(11 * time.Minute)
				h.mustCall()
			})
		})
	}
}

// TestTokenEndpointFailsForEver: the same without a token that could be served.
func TestTokenEndpointFailsForEver(t *testing.T) {
	for f, retryAfter := range map[iamtest.Fault]time.Duration{
		iamtest.HTTPStatus(429, 0): 0, iamtest.HTTPStatus(500, 0): 0, iamtest.HTTPStatus(503, 0): 0, iamtest.LostRequest(): 0,
		iamtest.HTTPStatus(429, 2*time.Minute):  2 * time.Minute,
		iamtest.HTTPStatus(503, 10*time.Minute): 10 * time.Minute,
		iamtest.HTTPStatus(503, 24*time.Hour):   24 * time.Hour,
	} {
		t.Run(f.String(), func(t *testing.T) {
			inHazard(t, iamtest.Options{}, func(h *hazard) {
				time.Sleep(20 * time.Hour)
				h.srv.Inject(iamtest.EndpointToken, f, -1)
				before := h.asked()
				var all sync.WaitGroup
				for n := range 1000 {
					all.Go(func() {
						time.Sleep(time.Duration(n) * 10 * time.Millisecond)
						for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(10 * time.Second) {
							ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
							_, err := h.client.TokenSource().TokenContext(ctx)
							cancel()
							if err == nil || errors.Is(err, oauth.ErrLoginRequired) {
								h.t.Errorf("a caller got %v", err)
							}
						}
					})
				}
				all.Wait()
				if n := h.asked() - before; n == 0 || n > failedRequests {
					h.t.Errorf("%d token requests in ten minutes, want at most %d", n, failedRequests)
				}
				h.spaced(min(retryAfter, 10*time.Minute))
				h.srv.ClearFaults()
				time.Sleep(11 * time.Minute)
				h.mustCall()
			})
		})
	}
}

// spaced: the server said when to come back, and that holds for every request.
func (h *hazard) spaced(wait time.Duration) {
	h.t.Helper()
	var last time.Time
	for _, r := range h.srv.Requests() {
		if r.Endpoint != iamtest.EndpointToken {
			continue
		}
		if gap := r.Time.Sub(last); !last.IsZero() && gap < wait {
			h.t.Errorf("the server wants %v, and was asked again after %v", wait, gap)
		}
		last = time.Time{}
		if r.Fault != "" {
			last = r.Time
		}
	}
}
