package dpop

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
)

// A rejection that never ends must not hold up the next attempt.
func TestTransportTrickle(t *testing.T) {
	trickle := func(w http.ResponseWriter, r *http.Request, body io.Writer) {
		flush := http.NewResponseController(w).Flush
		for i := 0; r.Context().Err() == nil && i < 20_000; i++ { // 100 s
			if _, err := body.Write([]byte("x")); err != nil {
				return
			}
			if gz, ok := body.(*gzip.Writer); ok && gz.Flush() != nil {
				return
			}
			if flush() != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for name, tt := range map[string]struct {
		http2 bool
		body  func(http.ResponseWriter, *http.Request)
	}{
		"chunked": {false, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			trickle(w, r, w)
		}},
		"length announced": {false, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "50000")
			w.WriteHeader(http.StatusUnauthorized)
			trickle(w, r, w)
		}},
		"nothing but the length": {false, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1")
			w.WriteHeader(http.StatusUnauthorized)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
		}},
		"compressed": {false, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusUnauthorized)
			trickle(w, r, gzip.NewWriter(w))
		}},
		"HTTP/2": {true, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			trickle(w, r, w)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) > 1 {
					return
				}
				w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
				w.Header().Set(NonceHeader, "n")
				tt.body(w, r)
			}))
			srv.EnableHTTP2 = tt.http2
			srv.StartTLS()
			defer srv.Close()
			tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
			tr.Base = srv.Client().Transport
			begin := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel() // before the server is closed, which waits for its handlers
			resp, err := tr.RoundTrip(must(http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)))
			if err != nil {
				t.Fatal(err)
			}
			drain(resp)
			if resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			if d := time.Since(begin); d > 10*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// A strictBody cannot bear what the contract of io.ReadCloser does not promise: a Close
// during a Read, or a second one.
type strictBody struct {
	t      *testing.T
	read   func([]byte) (int, error)
	busy   atomic.Int32
	closed atomic.Int32
}

func (b *strictBody) Read(p []byte) (int, error) {
	if b.busy.Add(1) != 1 || b.closed.Load() != 0 {
		b.t.Error("Read during another call, or after Close")
	}
	defer b.busy.Add(-1)
	return b.read(p)
}

func (b *strictBody) Close() error {
	if b.busy.Load() != 0 || b.closed.Add(1) != 1 {
		b.t.Error("Close during a Read, or twice")
	}
	return nil
}

func TestTransportDrainClosesOnce(t *testing.T) {
	slow := func(_ *http.Request, d time.Duration, n int) func([]byte) (int, error) {
		return func(p []byte) (int, error) {
			time.Sleep(d)
			return min(n, len(p)), nil
		}
	}
	for _, tt := range []struct {
		name  string
		read  func(*http.Request) func([]byte) (int, error)
		takes time.Duration // the call
	}{
		{"ends at once", func(*http.Request) func([]byte) (int, error) {
			return func([]byte) (int, error) { return 0, io.EOF }
		}, 0},
		{"fails", func(*http.Request) func([]byte) (int, error) {
			return func([]byte) (int, error) { return 1, io.ErrUnexpectedEOF }
		}, 0},
		{"never ends", func(r *http.Request) func([]byte) (int, error) { return slow(r, 0, 1000) }, 0},
		{"drips", func(r *http.Request) func([]byte) (int, error) { return slow(r, 7*time.Millisecond, 1) }, maxDrainTime},
		{"is slow", func(r *http.Request) func([]byte) (int, error) { return slow(r, time.Minute, 1) }, maxDrainTime},
		{"is silent", func(r *http.Request) func([]byte) (int, error) {
			return func([]byte) (int, error) { <-r.Context().Done(); return 0, r.Context().Err() }
		}, maxDrainTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var body *strictBody
				requests := 0
				tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
				tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
					if requests++; requests > 1 {
						return response(r, 200, http.Header{}), nil
					}
					resp := response(r, 401, nonceOf("n")(r))
					body = &strictBody{t: t, read: tt.read(r)}
					resp.Body, resp.ContentLength = body, -1
					return resp, nil
				})
				begin := time.Now()
				resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://h/", nil)))
				if err != nil || resp.StatusCode != 200 {
					t.Error(resp, err)
				}
				if d := time.Since(begin); d > tt.takes {
					t.Errorf("took %v", d)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if body.closed.Load() != 1 || tr.drains.Load() != 0 {
					t.Errorf("closed %d times, %d in progress", body.closed.Load(), tr.drains.Load())
				}
			})
		})
	}
}

// A server that falls silent in the body of a rejection keeps no connection, of which there
// may be no other, and no goroutine; nor does it where nobody ends the caller's context.
func TestTransportSilentRejections(t *testing.T) {
	for _, tt := range []struct {
		name, typ, challenge string
		http2                bool
	}{
		{"DPoP", "DPoP", `DPoP error="use_dpop_nonce"`, false},
		{"DPoP, HTTP/2", "DPoP", `DPoP error="use_dpop_nonce"`, true},
		{"Bearer", "Bearer", `Bearer error="invalid_token"`, false},
		{"Bearer, HTTP/2", "Bearer", `Bearer error="invalid_token"`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const calls = 5
			var requests, silent, conns atomic.Int32
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n := requests.Add(1)
				if n%2 == 0 {
					return
				}
				silent.Add(1)
				defer silent.Add(-1)
				w.Header().Set("WWW-Authenticate", tt.challenge)
				w.Header().Set(NonceHeader, fmt.Sprint("n", n))
				w.Header().Set("Content-Length", "100")
				w.WriteHeader(http.StatusUnauthorized)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}))
			srv.EnableHTTP2 = tt.http2
			srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				switch state {
				case http.StateNew:
					conns.Add(1)
				case http.StateClosed:
					conns.Add(-1)
				}
			}
			srv.StartTLS()
			defer srv.Close()
			defer srv.CloseClientConnections() // before Close, which waits for the handlers
			base := srv.Client().Transport.(*http.Transport)
			base.MaxConnsPerHost = 1
			src := &source{}
			for i := range 2 * calls {
				src.tokens = append(src.tokens, &oauth2.Token{AccessToken: fmt.Sprint("t", i), TokenType: tt.typ})
			}
			tr := newTransport(t, src)
			tr.Base = base
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // of the test, if it fails
			defer cancel()
			for range calls {
				resp, err := tr.RoundTrip(must(http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)))
				if err != nil {
					t.Fatalf("the second request did not get the connection: %v", err)
				}
				drain(resp)
				if resp.StatusCode != 200 {
					t.Errorf("status %d", resp.StatusCode)
				}
			}
			for ctx.Err() == nil && silent.Load()+conns.Load()+tr.drains.Load() > 0 {
				base.CloseIdleConnections() // over HTTP/2, one is idle a little after its last stream
				time.Sleep(time.Millisecond)
			}
			if ctx.Err() != nil {
				t.Errorf("%d handlers, %d connections and %d goroutines that read are left", silent.Load(), conns.Load(), tr.drains.Load())
			}
		})
	}
}

// The context of the last attempt lasts for as long as the body of its response is read.
func TestTransportResponseContext(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		use    func(io.ReadCloser)
		ended  bool
	}{
		{"in use", 200, func(b io.ReadCloser) { _, _ = b.Read(make([]byte, 1)) }, false},
		{"read", 200, func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b) }, true},
		{"closed", 200, func(b io.ReadCloser) { b.Close() }, true},
		{"rejected, in use", 401, func(io.ReadCloser) {}, false},
		{"rejected, closed", 401, func(b io.ReadCloser) { b.Close() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, typ := range []string{"DPoP", "Bearer"} {
				var ctx context.Context
				tr := newTransport(t, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t", TokenType: typ}))
				tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
					ctx = r.Context()
					resp := response(r, tt.status, http.Header{})
					resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader("body")), 4
					return resp, nil
				})
				resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://h/", nil)))
				if err != nil {
					t.Fatal(err)
				}
				tt.use(resp.Body)
				if ended := ctx.Err() != nil; ended != tt.ended {
					t.Errorf("%s: the context has ended: %v", typ, ended)
				}
				resp.Body.Close()
			}
		})
	}
	t.Run("error", func(t *testing.T) {
		var ctx context.Context
		tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("t")))
		tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
			ctx = r.Context()
			return nil, io.ErrUnexpectedEOF
		})
		if _, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://h/", nil))); err == nil || ctx.Err() == nil {
			t.Error(err, ctx.Err())
		}
	})
}

// After 101 the body is the connection, in both directions. A trailer is there at the end
// of a body.
func TestTransportBodyOfUpgrade(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			w.Header().Set("Trailer", "Checksum")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("Checksum", "abc")
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw) // until the client closes its side
	}))
	defer srv.Close()
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("t")))
	tr.Base = srv.Client().Transport
	req := must(http.NewRequest(http.MethodGet, srv.URL, nil))
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	conn, ok := resp.Body.(interface {
		io.ReadWriteCloser
		CloseWrite() error
	})
	if !ok {
		t.Fatalf("%T", resp.Body)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Error(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}

	resp = get(t, tr, srv.URL)
	if s := resp.Trailer.Get("Checksum"); s != "abc" {
		t.Errorf("trailer %q", s)
	}
}

// A Base that ignores the context of its requests keeps a bounded number of goroutines, and
// no call waits for it.
func TestTransportDrainsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var tr Transport
		var open, cancelled atomic.Int32
		gaveUp := func() context.CancelFunc { return sync.OnceFunc(func() { cancelled.Add(1) }) }
		for range 100 {
			body := &strictBody{t: t, read: func([]byte) (int, error) {
				open.Add(1)
				defer open.Add(-1)
				<-ctx.Done()
				return 0, ctx.Err()
			}}
			tr.drain(&http.Response{Body: body, ContentLength: -1}, gaveUp())
		}
		synctest.Wait()
		if n := open.Load(); n != maxDrains || cancelled.Load() != 100 {
			t.Errorf("%d bodies are being read, %d of 100 attempts cancelled", n, cancelled.Load())
		}
		cancel()
		synctest.Wait()
		begin := time.Now()
		tr.drain(&http.Response{Body: &strictBody{t: t, read: func([]byte) (int, error) { return 0, io.EOF }}, ContentLength: -1}, gaveUp())
		if d := time.Since(begin); d != 0 || tr.drains.Load() != 0 {
			t.Errorf("took %v, %d in progress", d, tr.drains.Load())
		}
	})
}

// A short rejection does not cost the connection, a long one is not read for it.
func TestTransportDrain(t *testing.T) {
	for _, tt := range []struct {
		name      string
		size      int
		announced bool
		reused    bool
	}{
		{"nothing", 0, true, true},
		{"short", 100, true, true},
		{"short, length unknown", 100, false, true},
		{"longest", maxDrain, true, true},
		{"long", maxDrain + 1, true, false},
		{"long, length unknown", 100 * maxDrain, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var requests, conns atomic.Int32
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if requests.Add(1) > 1 {
					return
				}
				w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
				w.Header().Set(NonceHeader, "n")
				if tt.announced {
					w.Header().Set("Content-Length", strconv.Itoa(tt.size))
				}
				w.WriteHeader(http.StatusUnauthorized)
				if !tt.announced {
					_ = http.NewResponseController(w).Flush()
				}
				_, _ = io.WriteString(w, strings.Repeat("x", tt.size))
			}))
			srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					conns.Add(1)
				}
			}
			srv.Start()
			defer srv.Close()
			tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
			if resp := get(t, tr, srv.URL); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			if reused := conns.Load() == 1; reused != tt.reused {
				t.Errorf("%d connections", conns.Load())
			}
		})
	}
}

// Headers of megabytes, and headers that repeat what was sent: a response like any
// other, in little time, and a bounded memory.
func TestTransportHostileHeaders(t *testing.T) {
	big := strings.Repeat(`DPoP x="\", error=`, 2<<20/18)
	for name, tt := range map[string]struct {
		h    func(*http.Request) http.Header
		want int // requests
	}{
		"a challenge of 2 MB":            {func(*http.Request) http.Header { return http.Header{"Www-Authenticate": {big}} }, 2},
		"100 000 challenges":             {func(*http.Request) http.Header { return http.Header{"Www-Authenticate": make([]string, 100_000)} }, 2},
		"a nonce of 2 MB":                {nonceOf(strings.Repeat("n", 2<<20)), 1},
		"a nonce that is longest":        {nonceOf(strings.Repeat("n", maxNonce)), 2},
		"100 000 nonces":                 {func(*http.Request) http.Header { return nonceOfMany(100_000) }, 1},
		"a Date of 2 MB":                 {func(*http.Request) http.Header { return http.Header{"Date": {strings.Repeat("9", 2<<20)}} }, 2},
		"100 000 Dates":                  {func(*http.Request) http.Header { return http.Header{"Date": make([]string, 100_000)} }, 2},
		"the token and the proof echoed": {echo, 1},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			src := &source{tokens: []*oauth2.Token{dpopToken("hunter2"), dpopToken("hunter3")}}
			tr := newTransport(t, src)
			tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				requests++
				if requests > 1 {
					return response(r, 200, http.Header{}), nil
				}
				return response(r, 401, tt.h(r)), nil
			})
			begin := time.Now()
			resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://h/", nil)))
			if err != nil {
				t.Fatal(err)
			}
			if d := time.Since(begin); d > 10*time.Second {
				t.Errorf("took %v", d)
			}
			if requests != tt.want || (resp.StatusCode == 200) != (requests == 2) {
				t.Errorf("%d requests, status %d", requests, resp.StatusCode)
			}
			for key, nonce := range tr.ownNonces.m {
				if len(nonce) > maxNonce {
					t.Errorf("a nonce of %d octets is kept for %s", len(nonce), key)
				}
			}
		})
	}
}

func nonceOf(nonce string) func(*http.Request) http.Header {
	return func(*http.Request) http.Header {
		h := nonceHeader(nonce)
		h.Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
		return h
	}
}

func nonceOfMany(n int) http.Header {
	return http.Header{NonceHeader: make([]string, n), "Www-Authenticate": {`DPoP error="use_dpop_nonce"`}}
}

// echo sends the request's credentials back in every header that is looked at.
func echo(r *http.Request) http.Header {
	h := http.Header{}
	for _, name := range []string{NonceHeader, "Date", "Age", "Location"} {
		h.Add(name, r.Header.Get("Authorization"))
	}
	h.Set("WWW-Authenticate", fmt.Sprintf("DPoP error=%q, error_description=%q", r.Header.Get("Authorization"), r.Header.Get("DPoP")))
	return h
}

// A server that gives every reason in turns, for ever, with a token source that
// always has another token: the number of requests is bounded.
func TestTransportNeverContent(t *testing.T) {
	requests := 0
	src := &source{}
	for i := range 100 {
		src.tokens = append(src.tokens, dpopToken(fmt.Sprint("t", i)))
	}
	tr := newTransport(t, src)
	tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		requests++
		h := nonceHeader(fmt.Sprint("n", requests))
		code := []string{codeUseNonce, codeInvalidToken, codeInvalidProof}[requests%3]
		h.Set("WWW-Authenticate", "DPoP error="+code)
		h.Set("Date", time.Now().Add(time.Duration(requests)*day).UTC().Format(http.TimeFormat))
		return response(r, 401, h), nil
	})
	for range 10 {
		before := requests
		if resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://h/", nil))); err != nil || resp.StatusCode != 401 {
			t.Fatal(resp, err)
		}
		if n := requests - before; n > 6 {
			t.Errorf("%d requests", n)
		}
	}
	if len(src.invalidated) > 20 {
		t.Errorf("%d tokens invalidated by 10 calls", len(src.invalidated))
	}
}

// A resource that always says 401: one request more for a call if there is another
// token, none if there is not.
func TestTransportAlways401(t *testing.T) {
	for _, header := range []string{"", "Bearer", `Bearer error="invalid_token"`} {
		requests := 0
		src := &source{}
		for i := range 51 {
			src.tokens = append(src.tokens, &oauth2.Token{AccessToken: fmt.Sprint("t", i)})
		}
		tr := newTransport(t, src)
		tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
			requests++
			return response(r, 401, http.Header{"Www-Authenticate": {header}}), nil
		})
		for range 50 {
			if resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://h/", nil))); err != nil || resp.StatusCode != 401 {
				t.Fatal(resp, err)
			}
		}
		if requests != 100 || len(src.invalidated) != 50 {
			t.Errorf("%q: %d requests, %d tokens invalidated", header, requests, len(src.invalidated))
		}
	}
}

// A body that cannot be sent again: the token is invalidated, but no other one is
// asked for, which could take a while.
func TestTransportInvalidTokenWithoutGetBody(t *testing.T) {
	src := &source{tokens: []*oauth2.Token{dpopToken("a"), dpopToken("b")}}
	tr := newTransport(t, src)
	tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		src.ctx = nil
		return response(r, 401, http.Header{}), nil
	})
	resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodPost, "https://h/", io.NopCloser(strings.NewReader("x")))))
	if err != nil || resp.StatusCode != 401 || len(src.invalidated) != 1 || src.ctx != nil {
		t.Errorf("%v, %v, invalidated %q, asked for another token: %v", resp, err, src.invalidated, src.ctx != nil)
	}
}

// A Base that breaks the contract of http.RoundTripper: an error or an empty body, as
// with http.Client, and no panic.
func TestTransportCarelessBase(t *testing.T) {
	redirected := must(http.NewRequest(http.MethodGet, "https://h/", nil))
	redirected.Response = &http.Response{Request: must(http.NewRequest(http.MethodGet, "https://elsewhere/", nil))}
	for name, tt := range map[string]struct {
		tok *oauth2.Token
		req *http.Request
	}{
		"DPoP":             {dpopToken("t"), must(http.NewRequest(http.MethodGet, "https://h/", nil))},
		"Bearer":           {&oauth2.Token{AccessToken: "t"}, must(http.NewRequest(http.MethodGet, "https://h/", nil))},
		"after a redirect": {dpopToken("t"), redirected},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTransport(t, oauth2.StaticTokenSource(tt.tok))
			tr.Base = roundTripper(func(*http.Request) (*http.Response, error) { return nil, nil })
			if resp, err := tr.RoundTrip(tt.req); resp != nil || err == nil || !strings.Contains(err.Error(), "dpop.roundTripper") {
				t.Errorf("nil response: %v, %v", resp, err)
			}
			tr.Base = roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusUnauthorized, Header: nonceOf("n")(nil)}, nil
			})
			resp, err := tr.RoundTrip(tt.req)
			if err != nil || resp.Body == nil {
				t.Errorf("nil body: %v, %v", resp, err)
			}
		})
	}
}
