package metadata

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/oauth2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a token source whose results the test sets.
type source struct {
	mu    sync.Mutex
	token *oauth2.Token
	err   error
	hangs bool // until its context ends
	calls int
}

func (s *source) set(token *oauth2.Token, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.err = token, err
}

func (s *source) hang(hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangs = hangs
}

func (s *source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	s.mu.Lock()
	s.calls++
	token, err, hangs := s.token, s.err, s.hangs
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return token, err
}

func lasting(access string, life time.Duration) *oauth2.Token {
	return &oauth2.Token{AccessToken: access, TokenType: "bearer", Expiry: time.Now().Add(life)}
}

// newServer is a server that answers requests of the tests, which have no socket.
func newServer(t *testing.T, src TokenSource, opts Options) *Server {
	t.Helper()
	opts.AnyUser = true
	s := New(src, opts)
	t.Cleanup(func() { s.Close() })
	return s
}

var bound = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8123}

func get(edit func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodGet, TokenPath, nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, bound))
	r.Host = bound.String()
	r.Header.Set("Metadata-Flavor", "Google")
	if edit != nil {
		edit(r)
	}
	return r
}

func ask(s http.Handler, edit func(*http.Request)) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, get(edit))
	return w
}

// wantServed checks that the token is served, and returns how long clients think it lasts.
func wantServed(t *testing.T, s http.Handler, access string) time.Duration {
	t.Helper()
	w := ask(s, nil)
	var got struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
		TokenType   string `json:"token_type"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got.AccessToken != access || got.TokenType != "Bearer" {
		t.Fatalf("got %v, want %s", got, access)
	}
	return time.Duration(got.ExpiresIn) * time.Second
}

func TestResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, &source{token: lasting("t1.a", 12*time.Hour)}, Options{})
		synctest.Wait()
		if life := wantServed(t, s, "t1.a"); life != 12*time.Hour {
			t.Errorf("expires_in is %v", life)
		}
		w := ask(s, nil)
		for name, want := range map[string]string{
			"Content-Type": "application/json", "Metadata-Flavor": "Google", "Cache-Control": "no-store",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if w := ask(s, func(r *http.Request) { r.Method = http.MethodHead }); w.Code != http.StatusOK {
			t.Errorf("HEAD: %d", w.Code)
		}
		if w := ask(s, func(r *http.Request) { r.URL.Path = "/" }); w.Code != http.StatusOK || w.Header().Get("Metadata-Flavor") != "Google" {
			t.Errorf("/: %d", w.Code)
		}
	})
}

func TestUnknownExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, &source{token: &oauth2.Token{AccessToken: "a"}}, Options{})
		synctest.Wait()
		if life := wantServed(t, s, "a"); life != unknownLife {
			t.Errorf("expires_in is %v", life)
		}
	})
}

func TestRejected(t *testing.T) {
	const access = "t1.never-to-be-seen"
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	var log bytes.Buffer
	s := newServer(t, &source{token: lasting(access, time.Hour)}, Options{
		Hosts: []string{"metadata:8123"}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	<-s.latest.Load().next
	for _, tt := range []struct {
		name string
		edit func(*http.Request)
		code int
	}{
		{"as it should be", nil, 200},
		{"lower case", header("Metadata-Flavor", "google"), 200},
		{"allowed host", host("Metadata:8123"), 200},
		{"mapped host", host("[::ffff:127.0.0.1]:8123"), 200},
		{"query", func(r *http.Request) { r.URL.RawQuery = "alt=json" }, 200},
		{"no flavor", func(r *http.Request) { r.Header.Del("Metadata-Flavor") }, 403},
		{"empty flavor", header("Metadata-Flavor", ""), 403},
		{"two flavors", func(r *http.Request) { r.Header.Add("Metadata-Flavor", "Google") }, 403},
		{"rebound name", host("attacker.example:8123"), 403},
		{"rebound name without port", host("attacker.example"), 403},
		{"localhost", host("localhost:8123"), 403},
		{"no host", host(""), 403},
		{"no port", host("127.0.0.1"), 403},
		{"another port", host("127.0.0.1:8124"), 403},
		{"another address", host("127.0.0.2:8123"), 403},
		{"another port of an allowed host", host("metadata:1"), 403},
		{"address as a number", host("2130706433:8123"), 403},
		{"Origin", header("Origin", "null"), 403},
		{"Referer", header("Referer", "http://127.0.0.1:8123/"), 403},
		{"Sec-Fetch-Site", header("Sec-Fetch-Site", "same-origin"), 403},
		{"Sec-Ch-Ua", header("Sec-Ch-Ua", ""), 403},
		{"Cookie", header("Cookie", "a=b"), 403},
		{"X-Forwarded-For", header("X-Forwarded-For", ""), 403},
		{"X-Forwarded-Port", header("X-Forwarded-Port", "1"), 403},
		{"x-forwarded-client-cert", header("x-forwarded-client-cert", ""), 403},
		{"Forwarded", header("Forwarded", "for=1"), 403},
		{"Via", header("Via", "1.1 p"), 403},
		{"body", func(r *http.Request) { r.ContentLength = -1 }, 403},
		{"POST", func(r *http.Request) { r.Method = http.MethodPost }, 405},
		{"PUT", func(r *http.Request) { r.Method = http.MethodPut }, 405},
		{"OPTIONS", func(r *http.Request) { r.Method = http.MethodOptions }, 405},
		{"preflight", func(r *http.Request) {
			r.Method = http.MethodOptions
			r.Header.Set("Access-Control-Request-Method", "GET")
		}, 403},
		{"another account", func(r *http.Request) { r.URL.Path = strings.Replace(TokenPath, "default", "other", 1) }, 404},
		{"more path", func(r *http.Request) { r.URL.Path = TokenPath + "/" }, 404},
		{"dots", func(r *http.Request) { r.URL.Path = "/x/.." + TokenPath }, 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := ask(s, tt.edit)
			if w.Code != tt.code || strings.Contains(w.Body.String(), access) != (tt.code == 200) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Error("another origin may read the response")
			}
		})
	}
	if strings.Contains(log.String(), access) || !strings.Contains(log.String(), "reason=") {
		t.Error(log.String())
	}
}

// TestDefaultPort: port 80 is left out of Host, also at the address of the real service.
func TestDefaultPort(t *testing.T) {
	s := newServer(t, &source{token: lasting("a", time.Hour)}, Options{Hosts: []string{"metadata"}})
	<-s.latest.Load().next
	for host, code := range map[string]int{
		"169.254.169.254": 200, "169.254.169.254:80": 200, "metadata": 200, "metadata:80": 200,
		"169.254.169.254:8080": 403, "metadata:8080": 403, "metadata.google.internal": 403,
	} {
		w := ask(s, func(r *http.Request) {
			*r = *r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(169, 254, 169, 254), Port: 80}))
			r.Host = host
		})
		if w.Code != code {
			t.Errorf("%s: %d, want %d", host, w.Code, code)
		}
	}
}

func TestSecret(t *testing.T) {
	s := newServer(t, &source{token: lasting("a", time.Hour)}, Options{Secret: "s3cr3t"})
	<-s.latest.Load().next
	for path, code := range map[string]int{
		"/s3cr3t" + TokenPath: 200, "/s3cr3t/": 200,
		TokenPath: 404, "/wrong" + TokenPath: 404, "/": 404, "//s3cr3t" + TokenPath: 404, "/s3cr3": 404, "/S3CR3T" + TokenPath: 404,
	} {
		if w := ask(s, func(r *http.Request) { r.URL.Path = path }); w.Code != code {
			t.Errorf("%s: %d, want %d", path, w.Code, code)
		}
	}
}

// TestSecretOfNoUse: no client could ever send it.
func TestSecretOfNoUse(t *testing.T) {
	for _, secret := range []string{"a/b", "/", "/a", "a?b", "a#b", "a b", "a%2fb", "a\\b", "ä", ".", ".."} {
		t.Run(secret, func(t *testing.T) {
			defer func() {
				if text, _ := recover().(string); !strings.Contains(text, "Options.Secret") || strings.Contains(text, secret) && len(secret) > 1 {
					t.Errorf("panic %q", text)
				}
			}()
			New(&source{}, Options{Secret: secret}).Close()
		})
	}
	newServer(t, &source{}, Options{Secret: "Az09-._~+=:@"})
}

// TestRenewedAhead: nobody asks for hours, and the first one gets the newest token at once.
func TestRenewedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{token: lasting("first", 12*time.Hour)}
		s := newServer(t, src, Options{})
		time.Sleep(10 * time.Hour)
		src.set(lasting("second", 12*time.Hour), nil) // what oauth does at that time
		time.Sleep(3 * time.Hour)
		began := time.Now()
		wantServed(t, s, "second")
		if took := time.Since(began); took != 0 {
			t.Errorf("the response took %v", took)
		}
	})
}

// TestServerDown: the token in memory is served at once until it expires, and then there
// is an error in less than a second.
func TestServerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{token: lasting("stale", time.Hour)}
		s := newServer(t, src, Options{ErrorText: func(error) string { return "log in again" }})
		synctest.Wait()
		src.hang(true)
		for range 59 {
			time.Sleep(time.Minute)
			began := time.Now()
			wantServed(t, s, "stale")
			if took := time.Since(began); took != 0 {
				t.Fatalf("the response took %v", took)
			}
		}
		time.Sleep(time.Minute)
		began := time.Now()
		w := ask(s, nil)
		if w.Code != http.StatusServiceUnavailable || w.Body.String() != "no IAM token: log in again\n" || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if took := time.Since(began); took >= time.Second {
			t.Errorf("the response took %v", took)
		}
	})
}

// TestErrorEndsToken: after a logout there is no token, even if the last one has not expired.
func TestErrorEndsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{token: lasting("a", time.Hour)}
		s := newServer(t, src, Options{})
		synctest.Wait()
		src.set(nil, errors.New("no session; t1.abcdefghijklmnop.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh"))
		time.Sleep(askEvery)
		synctest.Wait()
		if w := ask(s, nil); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "no session") || strings.Contains(w.Body.String(), "t1.abc") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		// A login: whoever asks after it waits for the token.
		time.Sleep(askPause)
		src.set(lasting("b", time.Hour), nil)
		wantServed(t, s, "b")
	})
}

// TestFirstTokenIsAwaited: clients that start at once with the server do not fail.
func TestFirstTokenIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, slow{500 * time.Millisecond, lasting("a", time.Hour)}, Options{})
		wantServed(t, s, "a")
	})
}

type slow struct {
	d     time.Duration
	token *oauth2.Token
}

func (s slow) TokenContext(context.Context) (*oauth2.Token, error) {
	time.Sleep(s.d)
	return s.token, nil
}

// TestFailingSourceIsNotHammered: however many ask.
func TestFailingSourceIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{err: errors.New("down")}
		s := newServer(t, src, Options{})
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			if w := ask(s, nil); w.Code != http.StatusServiceUnavailable {
				t.Fatal(w.Code)
			}
		}
		src.mu.Lock()
		defer src.mu.Unlock()
		if src.calls > 70 {
			t.Errorf("%d calls in a minute", src.calls)
		}
	})
}

func TestTokensOfNoUse(t *testing.T) {
	for name, token := range map[string]*oauth2.Token{
		"nil": nil, "empty": {}, "bound": {AccessToken: "a", TokenType: "DPoP"}, "expired": {AccessToken: "a", Expiry: time.Unix(1, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, &source{token: token}, Options{})
				if w := ask(s, nil); w.Code != http.StatusServiceUnavailable {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			})
		})
	}
}

func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{hangs: true}
		s := New(src, Options{AnyUser: true})
		synctest.Wait()
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		if w := ask(s, nil); w.Code != http.StatusServiceUnavailable {
			t.Errorf("%d", w.Code)
		}
	})
}

// serve serves on a port of loopback.
func serve(t *testing.T, s *Server, address string) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return l.Addr()
}

func request(t *testing.T, client *http.Client, addr string) (int, string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+TokenPath, nil)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	req.Header.Set("Metadata-Flavor", "Google")
	resp, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Error(err)
	}
	return resp.StatusCode, body.String()
}

// loopback are the addresses of this machine to listen on.
func loopback() []string {
	addresses := []string{"127.0.0.1:0"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil { // not in every container
		l.Close()
		addresses = append(addresses, "[::1]:0")
	}
	return addresses
}

// TestServe: over real sockets, with the check of users where there is one.
func TestServe(t *testing.T) {
	for _, address := range loopback() {
		t.Run(address, func(t *testing.T) {
			addr := serve(t, New(&source{token: lasting("t1.a", time.Hour)}, Options{}), address)
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			if code, body := request(t, client, addr.String()); code != 200 || !strings.Contains(body, "t1.a") {
				t.Errorf("%d %s", code, body)
			}
		})
	}
}

// TestThousandClients: each with a connection of its own, all at once.
func TestThousandClients(t *testing.T) {
	addr := serve(t, New(&source{token: lasting("t1.a", time.Hour)}, Options{}), "127.0.0.1:0")
	var wg sync.WaitGroup
	transport := &http.Transport{DisableKeepAlives: true}
	if runtime.GOOS != "linux" {
		transport.MaxConnsPerHost = 100 // as many as a listener there keeps waiting
	}
	client := &http.Client{Transport: transport}
	for range 1000 {
		wg.Go(func() {
			if code, body := request(t, client, addr.String()); code != 200 || !strings.Contains(body, "t1.a") {
				t.Errorf("%d %s", code, body)
			}
		})
	}
	wg.Wait()
}

// TestConnectionsAreLimited: more of them wait, and none is lost.
func TestConnectionsAreLimited(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limit := newLimited(l, 1, 1, nobodyIsStranger)
	var conns []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	first, err := limit.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error)
	go func() {
		c, err := limit.Accept()
		if err == nil {
			c.Close()
		}
		accepted <- err
		_, err = limit.Accept()
		accepted <- err
	}()
	select {
	case err := <-accepted:
		t.Fatalf("a second connection was accepted: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	first.Close()
	if err := <-accepted; err != nil {
		t.Error(err)
	}
	limit.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	for _, c := range conns {
		c.Close()
	}
}

func nobodyIsStranger(*limitedConn) bool { return false }

// serveFew serves with so many places for connections.
func serveFew(t *testing.T, s *Server, places, strangers int, stranger func(*limitedConn) bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.serve(ctx, newLimited(l, places, strangers, stranger)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return l.Addr().String()
}

// TestPlacesAreNotHeld: connections that stay open do not keep a client from its token.
func TestPlacesAreNotHeld(t *testing.T) {
	const places = 3
	const none = "" // nothing is sent
	for _, tt := range []struct {
		name      string
		request   string
		status    int
		strangers bool
	}{
		{"rejected", "GET / HTTP/1.1\r\nHost: attacker\r\n\r\n", 403, false},
		{"without the secret", "GET " + TokenPath + " HTTP/1.1\r\nHost: ADDRESS\r\nMetadata-Flavor: Google\r\n\r\n", 404, false},
		{"with another method", "PUT / HTTP/1.1\r\nHost: ADDRESS\r\nMetadata-Flavor: Google\r\n\r\n", 405, false},
		{"idle", "GET /s/ HTTP/1.1\r\nHost: ADDRESS\r\nMetadata-Flavor: Google\r\n\r\n", 200, false},
		{"strangers who are silent", none, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var strange atomic.Bool
			strange.Store(tt.strangers)
			s := New(&source{token: lasting("t1.a", time.Hour)}, Options{AnyUser: true, Secret: "s"})
			judged := make(chan struct{}, 100)
			addr := serveFew(t, s, places, 1, func(*limitedConn) bool {
				defer func() { judged <- struct{}{} }()
				return strange.Load()
			})
			for range 3 * places {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				<-judged
				if tt.request == none {
					continue
				}
				_, _ = c.Write([]byte(strings.ReplaceAll(tt.request, "ADDRESS", addr)))
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != tt.status || resp.Close != (tt.status != 200) {
					t.Fatalf("%d, closes %v", resp.StatusCode, resp.Close)
				}
			}
			strange.Store(false)
			// Long before the server gives up those that are silent or idle.
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: headerTimeout * 4 / 5}
			if code, body := request(t, client, addr+"/s"); code != 200 || !strings.Contains(body, "t1.a") {
				t.Errorf("%d %s", code, body)
			}
		})
	}
}

func BenchmarkServeHTTP(b *testing.B) {
	s := New(&source{token: lasting("t1."+strings.Repeat("a", 300), time.Hour)}, Options{AnyUser: true})
	defer s.Close()
	<-s.latest.Load().next
	r := get(nil)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(strconv.Itoa(w.Code))
		}
	}
}
