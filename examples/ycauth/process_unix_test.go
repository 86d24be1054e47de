//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// A home is a user's configuration directory and the server that they use, for
// tests that need more of a process than a script can give.
type home struct {
	t     *testing.T
	srv   *iamtest.Server
	dir   string
	clock string
	ahead time.Duration
	env   []string
}

// newHome starts a server whose refresh tokens are good for one use, so that a
// lost response is a lost session.
func newHome(t *testing.T, edit func(*iamtest.Options)) *home {
	t.Helper()
	o := iamtest.Options{Nonces: iamtest.NoncesOff, Rotation: iamtest.RotateAlways, AllowUnbound: true}
	if edit != nil {
		edit(&o)
	}
	srv, err := iamtest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	h := &home{t: t, srv: srv, dir: dir, clock: filepath.Join(dir, "clock")}
	h.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"), "GORACE=atexit_sleep_ms=0",
		"YCAUTH_CONFIG_DIR=" + filepath.Join(dir, "ycauth"), "YCAUTH_ENDPOINT=" + srv.URL,
		"TEST_CLOCK=" + h.clock, "BROWSER=browser",
	}
	return h
}

// command is a program of the user's.
func (h *home) command(name string, args ...string) *exec.Cmd {
	h.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir = h.env, h.dir
	return cmd
}

// result is what a program left.
type result struct {
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\n[stdout]\n%s[stderr]\n%s", r.code, r.stdout, r.stderr)
}

// run runs ycauth to its end.
func (h *home) run(args ...string) result {
	h.t.Helper()
	return h.finish(h.command("ycauth", args...))
}

func (h *home) finish(cmd *exec.Cmd) result {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must runs ycauth, which has to end with an exit code.
func (h *home) must(code int, args ...string) result {
	h.t.Helper()
	r := h.run(args...)
	if r.code != code {
		h.t.Fatalf("ycauth %s: want exit code %d, got %v", strings.Join(args, " "), code, r)
	}
	return r
}

// advance moves the clocks of the server and of ycauth.
func (h *home) advance(d time.Duration) {
	h.t.Helper()
	h.srv.Advance(d)
	h.ahead += d
	if err := os.WriteFile(h.clock, []byte(h.ahead.String()), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *home) path(elem ...string) string {
	return filepath.Join(append([]string{h.dir, "ycauth"}, elem...)...)
}

func (h *home) session(profile string) oauth.Session {
	h.t.Helper()
	store, err := filestore.New(h.path("sessions"), profile)
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := store.Load(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// awaitFault waits until the injected fault has begun: its request is at the
// server.
func (h *home) awaitFault() {
	h.t.Helper()
	for end := time.Now().Add(patience); h.srv.PendingFaults() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatal("the request did not come")
		}
	}
}

// newProxy passes requests on. begin is called with the path of each, and what it
// returns at its end.
func newProxy(t *testing.T, target string, begin func(path string) (end func())) (address string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(u)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer begin(r.URL.Path)()
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}
