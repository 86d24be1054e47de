package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if built != "" {
			_ = os.RemoveAll(filepath.Dir(built))
		}
		os.Exit(code)
	}))
}

// built is where the program is, if a test has asked for it.
var built string

// patience bounds whatever waits.
const patience = time.Minute

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newIAM starts an IAM whose refresh tokens are replaced at every renewal, and
// that ends a session in which a replaced one is used again. Its clock stands
// still but for Advance, unless it is given another one.
func newIAM(t *testing.T, clock ...func() time.Time) *iamtest.Server {
	t.Helper()
	began := time.Now()
	now := func() time.Time { return began }
	if len(clock) > 0 {
		now = clock[0]
	}
	return iamtest.Start(t, iamtest.Options{Nonces: iamtest.NoncesRequired, Rotation: iamtest.RotateAlways, Now: now})
}

// newConfig is a service of iam's, logged in there.
func newConfig(t *testing.T, iam *iamtest.Server) config {
	t.Helper()
	dir := t.TempDir()
	cfg, err := parseConfig([]string{
		"-iam", iam.URL, "-api", iam.URL + "/api/whoami", "-client-id", iam.ClientID,
		"-key", filepath.Join(dir, "dpop.pem"), "-sessions", filepath.Join(dir, "sessions"),
		"-drain", patience.String(), "-announce", "0s",
	}, func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	cfg.clock = iam.Now
	if err := loginEmbedded(bounded(t), cfg, iam); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// stored is the session as another process would find it.
func stored(t *testing.T, cfg config) oauth.Session {
	t.Helper()
	store, err := filestore.New(cfg.sessions, cfg.profile)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A running service.
type running struct {
	*service
	url     string
	stop    context.CancelFunc // what SIGTERM does
	refuses chan struct{}      // closed when no connection is accepted any more
	ended   chan error
}

// A watchedListener tells when it is closed.
type watchedListener struct {
	net.Listener
	closed func()
}

func (l *watchedListener) Close() error {
	defer l.closed()
	return l.Listener.Close()
}

func start(t *testing.T, cfg config) *running {
	t.Helper()
	s, err := newService(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r := &running{
		service: s, url: "http://" + l.Addr().String(), stop: cancel,
		refuses: make(chan struct{}), ended: make(chan error, 1),
	}
	watched := &watchedListener{l, sync.OnceFunc(func() { close(r.refuses) })}
	go func() { r.ended <- s.serve(ctx, watched) }()
	return r
}

// end stops the service and waits for it.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

// get asks the service, over a connection that is not kept.
func get(ctx context.Context, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// want gets a path and compares the status, and what the body has in it.
func (r *running) want(t *testing.T, path string, status int, parts ...string) {
	t.Helper()
	code, body, err := get(bounded(t), r.url+path)
	if err != nil || code != status {
		t.Fatalf("%s: %d %q, %v; want %d", path, code, body, err, status)
	}
	for _, part := range parts {
		if !strings.Contains(body, part) {
			t.Errorf("%s: no %q in\n%s", path, part, body)
		}
	}
}

// A gate holds token requests back until it is opened.
type gate struct {
	next    http.RoundTripper
	arrived chan struct{} // closed when one waits
	open    chan struct{} // to be closed
	once    sync.Once
}

func newGate() *gate {
	return &gate{next: &http.Transport{DisableKeepAlives: true}, arrived: make(chan struct{}), open: make(chan struct{})}
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	g.once.Do(func() { close(g.arrived) })
	select {
	case <-g.open:
		return g.next.RoundTrip(r)
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func (g *gate) await(t *testing.T) {
	t.Helper()
	select {
	case <-g.arrived:
	case <-bounded(t).Done():
		t.Fatal("no token request")
	}
}

// While a renewal hangs, requests flow: none waits for it, and the renewal is
// one.
func TestRenewalBehindRequests(t *testing.T) {
	iam := newIAM(t)
	cfg := newConfig(t, iam)
	g := newGate()
	cfg.iamHTTP = &http.Client{Transport: g}
	r := start(t, cfg)
	r.want(t, "/readyz", 200, "ready, with a token for another 12h")
	r.want(t, "/", 200, `"subject":"ajeiamtestuser000001"`)
	before := stored(t, cfg)

	iam.Advance(11 * time.Hour) // stale, and not expired
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if code, body, err := get(bounded(t), r.url+"/"); err != nil || code != 200 {
				t.Errorf("%d %s, %v", code, body, err)
			}
		})
	}
	wg.Wait() // all have an answer
	g.await(t)
	if n := iam.Count(iamtest.EndpointToken, "refresh_token"); n != 0 {
		t.Fatalf("%d renewals have reached the server: the gate holds nothing back", n)
	}
	r.want(t, "/metrics", 200, `ycauth_renewals_total{outcome="renewed",cause="stale"} 0`, "ycauth_token_expires_in_seconds 3600\n")

	close(g.open)
	r.end(t) // waits for the renewal
	if after := stored(t, cfg); after.Generation != before.Generation+1 || after.RefreshToken == before.RefreshToken {
		t.Errorf("generation %d after %d", after.Generation, before.Generation)
	}
	for _, want := range []string{
		`ycauth_renewals_total{outcome="renewed",cause="stale"} 1`, "ycauth_rotations_total 1",
		"ycauth_token_expires_in_seconds 43200\n", "ycauth_session_unsaved 0",
	} {
		if text := string(r.metrics.text()); !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if live := iam.LiveGrants(); live != 1 {
		t.Errorf("%d grants are alive: a refresh token was used twice", live)
	}
}

// A service that is told to stop accepts nothing more, answers what runs, which
// waits for a renewal here, and has the new refresh token in its store.
func TestStopWhileRequestsWaitForRenewal(t *testing.T) {
	iam := newIAM(t)
	cfg := newConfig(t, iam)
	g := newGate()
	cfg.iamHTTP = &http.Client{Transport: g}
	r := start(t, cfg)
	before := stored(t, cfg)
	iam.Advance(13 * time.Hour) // expired

	answers := make(chan string, 3)
	for range cap(answers) {
		go func() {
			_, body, err := get(bounded(t), r.url+"/")
			answers <- body + errText(err)
		}()
	}
	g.await(t)
	r.stop()
	<-r.refuses
	if _, _, err := get(bounded(t), r.url+"/"); err == nil {
		t.Error("a service that stops has taken a request")
	}
	close(g.open)
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	served := 0
	for range cap(answers) {
		if strings.Contains(<-answers, `"subject"`) {
			served++ // one at least had begun; the others may have come too late
		}
	}
	if served == 0 {
		t.Error("the requests that ran were cut off")
	}
	if after := stored(t, cfg); after.Generation != before.Generation+1 || after.RefreshToken == before.RefreshToken {
		t.Errorf("generation %d after %d", after.Generation, before.Generation)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// What the service cannot do without, it says: to the probe, to callers and to
// the metrics.
func TestNotReady(t *testing.T) {
	t.Run("nobody has logged in", func(t *testing.T) {
		iam := newIAM(t)
		cfg := newConfig(t, iam)
		cfg.profile = "another"
		r := start(t, cfg)
		defer r.end(t)
		r.want(t, "/readyz", 503, "log in: there is no session")
		r.want(t, "/", 503, "logged in again")
		r.want(t, "/healthz", 200, "ok")
		r.want(t, "/metrics", 200, `ycauth_renewals_total{outcome="login_required",cause="invalid"} 1`)
		if _, body, _ := get(bounded(t), r.url+"/metrics"); strings.Contains(body, "expires_in") {
			t.Errorf("there is no token, and it expires:\n%s", body)
		}
	})
	t.Run("the session was revoked", func(t *testing.T) {
		iam := newIAM(t)
		cfg := newConfig(t, iam)
		r := start(t, cfg)
		defer r.end(t)
		r.want(t, "/readyz", 200)
		iam.RevokeRefreshToken(stored(t, cfg).RefreshToken.Reveal())
		iam.Advance(13 * time.Hour)
		r.want(t, "/readyz", 503, "expired, was revoked or was replaced")
		r.want(t, "/metrics", 200, `{outcome="login_required",cause="invalid"} 1`, "ycauth_token_expires_in_seconds -3600\n")
	})
	t.Run("the API refuses a token before its time", func(t *testing.T) {
		iam := newIAM(t)
		cfg := newConfig(t, iam)
		r := start(t, cfg)
		defer r.end(t)
		r.want(t, "/", 200)
		iam.RevokeAccessToken(stored(t, cfg).AccessToken.Reveal())
		r.want(t, "/", 200, `"subject"`)
		r.want(t, "/metrics", 200, `{outcome="renewed",cause="rejected"} 1`, "ycauth_rejected_tokens_total 1")
	})
	t.Run("the API is gone", func(t *testing.T) {
		iam := newIAM(t)
		cfg := newConfig(t, iam)
		cfg.api = "http://127.0.0.1:1/"
		r := start(t, cfg)
		defer r.end(t)
		r.want(t, "/", 502, "not reached")
		r.want(t, "/other", 404)
	})
	t.Run("the service stops", func(t *testing.T) {
		s := &service{}
		s.stopping.Store(true)
		w := &answer{header: make(http.Header)}
		s.readyz(w, nil)
		if w.status != 503 || w.String() != "stopping\n" {
			t.Errorf("%d %q", w.status, w.String())
		}
	})
	t.Run("the port is taken from under it", func(t *testing.T) {
		cfg := newConfig(t, newIAM(t))
		s, err := newService(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if err := s.serve(bounded(t), l); !errors.Is(err, net.ErrClosed) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a request does not end in time", func(t *testing.T) {
		cfg := newConfig(t, newIAM(t))
		asked := make(chan struct{})
		hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done()
		}))
		defer hanging.Close()
		cfg.api, cfg.drain = hanging.URL, time.Millisecond
		r := start(t, cfg)
		cut := make(chan error, 1)
		go func() {
			_, _, err := get(bounded(t), r.url+"/")
			cut <- err
		}()
		<-asked
		r.stop()
		if err := <-r.ended; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cut off") || strings.Contains(err.Error(), "lost") {
			t.Errorf("error %v", err)
		}
		if err := <-cut; err == nil {
			t.Error("the request has an answer")
		}
	})
}

// answer is an http.ResponseWriter.
type answer struct {
	strings.Builder
	header http.Header
	status int
}

func (a *answer) Header() http.Header    { return a.header }
func (a *answer) WriteHeader(status int) { a.status = status }

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		want string // in the error; "" for none
		ok   func(config) bool
	}{
		{"defaults", []string{"-api", "https://api.example/"}, nil, "", func(c config) bool {
			return c.listen == "127.0.0.1:8080" && c.provider.Name == "yandex-cloud" && c.clientID == oauth.YandexCloudClientID &&
				filepath.Base(c.keyFile) == "dpop.pem" && c.profile == "default"
		}},
		{"environment", nil, map[string]string{"SERVICE_API": "https://api.example/", "SERVICE_CLIENT_ID": "me", "SERVICE_DRAIN": "3s"}, "",
			func(c config) bool { return c.clientID == "me" && c.drain == 3*time.Second }},
		{"the flag wins", []string{"-api", "https://flag.example/"}, map[string]string{"SERVICE_API": "https://env.example/"}, "",
			func(c config) bool { return c.api == "https://flag.example/" }},
		{"another IAM", []string{"-api", "https://a.example", "-iam", "https://iam.example/"}, nil, "", func(c config) bool {
			return c.provider.Name == "iam.example" && c.provider.TokenURL == "https://iam.example/oauth/token" && c.provider.AuthURL == "https://iam.example/oauth/authorize"
		}},
		{"login needs no API", []string{"-login"}, nil, "", func(c config) bool { return c.login }},
		{"demo needs nothing", []string{"-demo"}, nil, "", func(c config) bool { return c.demo }},
		{"no API", nil, nil, "-api is missing", nil},
		{"API without host", []string{"-api", "api"}, nil, "not a URL", nil},
		{"API of another protocol", []string{"-api", "ftp://a.example"}, nil, "not a URL", nil},
		{"no time to drain", []string{"-demo", "-drain", "-1s"}, nil, "-drain cannot be negative", nil},
		{"IAM without host", []string{"-api", "https://a.example", "-iam", "iam"}, nil, "-iam iam is not a URL", nil},
		{"argument", []string{"start"}, nil, `"start" is too much`, nil},
		{"unknown flag", []string{"-x"}, nil, "not defined", nil},
		{"wrong variable", nil, map[string]string{"SERVICE_DRAIN": "long"}, "SERVICE_DRAIN=long", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			cfg, err := parseConfig(tt.args, func(name string) string { return tt.env[name] }, io.Discard)
			switch {
			case tt.want != "":
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
			case err != nil || !tt.ok(cfg):
				t.Errorf("%+v, %v", cfg, err)
			}
		})
	}
}

// What a person does: -login, with the address that the browser ended on.
func TestRunLogin(t *testing.T) {
	iam := newIAM(t)
	dir := t.TempDir()
	args := []string{"-login", "-iam", iam.URL, "-sessions", filepath.Join(dir, "app", "sessions")}
	noEnv := func(string) string { return "" }
	in, _ := io.Pipe()
	defer in.Close()
	screen, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(bounded(t), args, noEnv, in, io.Discard, out)
		out.Close()
	}()
	var last string
	for lines := bufio.NewScanner(screen); lines.Scan(); {
		last = lines.Text()
		if strings.HasPrefix(last, iam.URL+"/oauth/authorize?") {
			u := last
			go func() {
				if err := iam.OpenURL(bounded(t), u); err != nil {
					t.Error(err)
				}
			}()
		}
	}
	if err := <-ended; err != nil || !strings.HasPrefix(last, "Logged in.") {
		t.Fatalf("%v after %q", err, last)
	}
	if _, err := dpop.LoadKeyFile(filepath.Join(dir, "app", "dpop.pem")); err != nil {
		t.Error(err)
	}
	if s := stored(t, config{sessions: filepath.Join(dir, "app", "sessions"), profile: "default"}); s.RefreshToken == "" {
		t.Error("there is no refresh token")
	}
	t.Run("without a key nothing starts", func(t *testing.T) {
		err := run(bounded(t), []string{"-api", iam.URL, "-sessions", filepath.Join(t.TempDir(), "sessions")}, noEnv, in, io.Discard, io.Discard)
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}

// TestRunNamesRemedies: errors of the start say which flag they are about.
func TestRunNamesRemedies(t *testing.T) {
	sessions := filepath.Join(t.TempDir(), "sessions")
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"not logged in", []string{"-api", "https://api.example", "-sessions", sessions}, "log in first, with -login"},
		{"address", []string{"-demo", "-listen", "nonsense"}, "-listen: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := run(bounded(t), tt.args, func(string) string { return "" }, strings.NewReader(""), io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
