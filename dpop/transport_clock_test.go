package dpop

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
)

// wrongClock is a clock that is off, and can be set.
type wrongClock struct{ off atomic.Int64 }

func (c *wrongClock) set(off time.Duration) { c.off.Store(int64(off)) }
func (c *wrongClock) now() time.Time        { return time.Now().Add(time.Duration(c.off.Load())).Round(0) }

// newJudge is a resource that wants a nonce or not, and judges iat or not.
func newJudge(t *testing.T, nonce, iat bool, handler http.HandlerFunc) *resource {
	t.Helper()
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key()), "plain": ""}, handler)
	if !iat {
		srv.verifier.MaxAge, srv.verifier.Leeway = math.MaxInt64/2, math.MaxInt64/2
		srv.plain.MaxAge, srv.plain.Leeway = math.MaxInt64/2, math.MaxInt64/2
	}
	if nonce {
		srv.setNonce("n")
	}
	return srv
}

// A clock that is two hours off, against servers of every kind; then it jumps.
func TestTransportWrongClock(t *testing.T) {
	for _, off := range []time.Duration{0, -2 * hour, 2 * hour, -20 * day} {
		for _, nonce := range []bool{false, true} {
			for _, iat := range []bool{false, true} {
				for _, jump := range []time.Duration{-3 * hour, 3 * hour} {
					t.Run(fmt.Sprintf("%v/nonce=%v/iat=%v/%v", off, nonce, iat, jump), func(t *testing.T) {
						srv := newJudge(t, nonce, iat, nil)
						var c wrongClock
						c.set(off)
						tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
						tr.Clock = c.now
						step := func(name string, refusals int) {
							t.Helper()
							resp, err := (&http.Client{Transport: tr}).Post(srv.URL+"/x", "text/plain", strings.NewReader("body"))
							if err != nil {
								t.Fatal(err)
							}
							drain(resp)
							want := []int{401, 200}[1-refusals:]
							if got := srv.statuses(); !slices.Equal(got, want) || resp.StatusCode != 200 {
								t.Errorf("%s: requests %v, want %v", name, got, want)
							}
						}
						refusals := 0
						if nonce || (iat && off != 0) {
							refusals = 1 // the demand for a nonce tells the time too
						}
						step("first", refusals)
						step("second", 0)

						c.set(off + jump)
						refusals = 0
						if jump > 0 && iat {
							refusals = 1 // the computer could have slept
						}
						step("after the jump", refusals)
						step("and then", 0)
						c.set(off)
						if refusals = 0; jump < 0 && iat {
							refusals = 1
						}
						step("after it jumped back", refusals)
						step("and then", 0)
					})
				}
			}
		}
	}
}

// The clock jumps while a request is under way, the first one or a later one.
func TestTransportClockJumpsDuringTheRequest(t *testing.T) {
	for _, off := range []time.Duration{0, -2 * hour, 2 * hour} {
		for _, jump := range []time.Duration{-3 * hour, 3 * hour} {
			for _, at := range []int{1, 2} {
				t.Run(fmt.Sprintf("%v/%v/%d", off, jump, at), func(t *testing.T) {
					var c wrongClock
					c.set(off)
					var requests atomic.Int32
					srv := newJudge(t, false, true, nil)
					inner := srv.Config.Handler
					srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if requests.Add(1) == int32(at) {
							c.set(off + jump)
						}
						inner.ServeHTTP(w, r)
					})
					tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
					tr.Clock = c.now
					refused, failed := 0, 0
					for range 4 {
						resp := get(t, tr, srv.URL)
						if resp.StatusCode != 200 {
							failed++
						}
					}
					for _, status := range srv.statuses() {
						if status != 200 {
							refused++
						}
					}
					wantRefused := 0
					if off != 0 {
						wantRefused++
					}
					if failed != 0 || refused != wantRefused {
						t.Errorf("%d of 4 failed, want none; %d refused, want %d", failed, refused, wantRefused)
					}
				})
			}
		}
	}
}

// A request that cannot be sent again fails once, and the next one does not.
func TestTransportWrongClockWithoutGetBody(t *testing.T) {
	srv := newJudge(t, false, true, nil)
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	tr.Clock = func() time.Time { return time.Now().Add(-2 * hour) }
	for _, want := range []int{401, 200, 200} {
		resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodPost, srv.URL, io.NopCloser(strings.NewReader("x")))))
		if err != nil {
			t.Fatal(err)
		}
		drain(resp)
		if resp.StatusCode != want {
			t.Errorf("status %d, want %d", resp.StatusCode, want)
		}
	}
}

// What another client has learnt of the clock saves the first refusal.
func TestTransportSharedClocks(t *testing.T) {
	var shared Clocks
	var c wrongClock
	c.set(-2 * hour)
	for _, want := range [][]int{{401, 200}, {200}} {
		srv := newJudge(t, false, true, nil) // each is an origin of its own
		tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
		tr.Clock, tr.Clocks = c.now, &shared
		get(t, tr, srv.URL)
		if got := srv.statuses(); !slices.Equal(got, want) {
			t.Errorf("requests %v, want %v", got, want)
		}
	}
}

// A Date that is not the time of the server that judges: one refusal, then never
// again.
func TestTransportWrongDate(t *testing.T) {
	srv := newJudge(t, false, true, func(w http.ResponseWriter, _ *http.Request) {})
	inner := srv.Config.Handler
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = dateHeader(time.Now().Add(2 * hour))["Date"]
		inner.ServeHTTP(w, r)
	})
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	for i, want := range [][]int{{200}, {401, 200}, {200}, {200}} {
		if resp := get(t, tr, srv.URL); resp.StatusCode != 200 {
			t.Errorf("request %d: status %d", i, resp.StatusCode)
		}
		if got := srv.statuses(); !slices.Equal(got, want) {
			t.Errorf("request %d: %v, want %v", i, got, want)
		}
	}
}

// A server that rejects every proof for another reason gets two requests for one
// until both clocks were tried, then one.
func TestTransportRejectedForEver(t *testing.T) {
	for _, off := range []time.Duration{0, -2 * hour} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			requests := 0
			tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
			tr.Clock = func() time.Time { return time.Now().Add(off) }
			tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				requests++
				h := dateHeader(time.Now())
				h.Set("WWW-Authenticate", `DPoP error="invalid_dpop_proof"`)
				return response(r, 401, h), nil
			})
			for range 20 {
				if resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://h/", nil))); err != nil || resp.StatusCode != 401 {
					t.Fatal(resp, err)
				}
			}
			want := 20
			if off != 0 {
				want += 3 // the Date, our own clock, the Date
			}
			if requests != want {
				t.Errorf("%d requests, want %d", requests, want)
			}
		})
	}
}

// Bearer tokens need no proof, so nobody's clock matters.
func TestTransportClockOfABearerToken(t *testing.T) {
	srv := newJudge(t, false, true, nil)
	tr := newTransport(t, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "plain"}))
	tr.Clock = func() time.Time { t.Error("the clock was read"); return time.Now() }
	if resp := get(t, tr, srv.URL); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if len(tr.ownClocks.m) != 0 {
		t.Error("a clock was learnt")
	}
}

// The way to a connection is no part of the round trip: a slow one must not hide
// the time.
func TestTransportSlowConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
		tr.Clock = func() time.Time { return time.Now().Add(-2 * hour) }
		j := new(judge)
		tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
			time.Sleep(20 * second)
			httptrace.ContextClientTrace(r.Context()).GotConn(httptrace.GotConnInfo{})
			return j.RoundTrip(r)
		})
		if resp := get(t, tr, "https://h/"); resp.StatusCode != 200 || j.requests != 2 {
			t.Errorf("status %d after %d requests", resp.StatusCode, j.requests)
		}
	})
}

// judge is a server whose clock is right, without a network. With nonces it wants the
// nonce of its last response.
type judge struct {
	verifier Verifier
	nonces   bool
	requests int
}

func (j *judge) RoundTrip(r *http.Request) (*http.Response, error) {
	h := dateHeader(time.Now())
	_, err := j.verifier.VerifyRequest(r, Expected{URL: r.URL.String()})
	if j.nonces {
		last := strconv.Itoa(j.requests)
		if p := r.Header.Get("DPoP"); err == nil && takeNonce(p) != last {
			err = &ProofError{Reason: "nonce", Err: ErrUseNonce}
		}
		h.Set(NonceHeader, strconv.Itoa(j.requests+1))
	}
	j.requests++
	if err == nil {
		return response(r, 200, h), nil
	}
	var pe *ProofError
	if !errors.As(err, &pe) {
		return nil, err
	}
	h.Set("WWW-Authenticate", `DPoP error="`+pe.Code()+`"`)
	return response(r, 401, h), nil
}

// takeNonce is the nonce of a proof that was verified.
func takeNonce(proof string) string {
	var c struct{ Nonce string }
	b, _ := base64.RawURLEncoding.DecodeString(strings.Split(proof, ".")[1])
	_ = json.Unmarshal(b, &c)
	return c.Nonce
}

// Whenever our clock is set, which is at the latest when it is next read, no request
// fails, and the whole costs one more request.
func TestTransportClockSetAtAnyReading(t *testing.T) {
	offs := []time.Duration{0, 2 * hour, -2 * hour, 90 * second, -90 * second}
	for _, nonces := range []bool{false, true} {
		for _, off := range offs {
			for _, then := range offs {
				for at := 2; at < 18; at++ {
					j := &judge{nonces: nonces}
					tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
					tr.Base = j
					readings := 0
					tr.Clock = func() time.Time {
						if readings++; readings < at {
							return time.Now().Add(off)
						}
						return time.Now().Add(then)
					}
					most := 5 // four, and one more for the jump
					if off != 0 {
						most++ // to see that the clock is wrong
					}
					if nonces {
						most++ // the first one
					}
					for i := range 4 {
						if resp := get(t, tr, "https://h/"); resp.StatusCode != 200 {
							t.Errorf("clock off by %v, by %v from reading %d on, nonces %v: request %d ends with %d",
								off, then, at, nonces, i+1, resp.StatusCode)
						}
					}
					if j.requests > most {
						t.Errorf("clock off by %v, by %v from reading %d on, nonces %v: %d requests, want at most %d",
							off, then, at, nonces, j.requests, most)
					}
				}
			}
		}
	}
}

// A server that rejects every proof gets a third one only if our clock was set by a
// second or more after the first.
func TestTransportSecondCorrection(t *testing.T) {
	for set, want := range map[time.Duration]int{0: 2, second: 3, -second: 3, second - 1: 2, 1 - second: 2} {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
			requests, off := 0, time.Duration(0)
			tr.Clock = func() time.Time { return time.Now().Add(off) }
			tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				if requests++; requests == 2 {
					off = set
				}
				h := dateHeader(time.Now().Add(time.Duration(requests) * hour))
				h.Set("WWW-Authenticate", `DPoP error="invalid_dpop_proof"`)
				return response(r, 401, h), nil
			})
			if resp := get(t, tr, "https://h/"); resp.StatusCode != 401 || requests != want {
				t.Errorf("set by %v: status %d after %d requests, want %d", set, resp.StatusCode, requests, want)
			}
		})
	}
}

// Where the clocks agree and no connection died, a rejected proof is the caller's.
func TestTransportRejectedOnce(t *testing.T) {
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("WWW-Authenticate", `DPoP error="invalid_dpop_proof"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer srv.Close()
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	if resp := get(t, tr, srv.URL); resp.StatusCode != 401 || requests.Load() != 1 {
		t.Errorf("status %d after %d requests", resp.StatusCode, requests.Load())
	}
}
