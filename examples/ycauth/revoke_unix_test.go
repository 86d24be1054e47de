//go:build unix

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// TestInterruptedRevocation: the user is told in three lines what was done, and the
// same command goes on from there.
func TestInterruptedRevocation(t *testing.T) {
	const total = 400
	for _, format := range []string{outputTable, outputJSON} {
		t.Run(format, func(t *testing.T) {
			h := newHome(t, nil)
			h.must(0, "login")
			h.srv.Seed(total, func(_ int, s *iamtest.Seed) { s.ProtectionLevel = iamtest.NoProtection })
			h.srv.Inject(iamtest.EndpointRevoke, iamtest.Slow(20*time.Millisecond), -1)
			args := []string{"revoke", "--protection-level", "NO_PROTECTION", "--yes", "-o", format}
			cmd := h.command("ycauth", args...)
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for h.srv.Count(iamtest.EndpointRevoke) < 20 {
				time.Sleep(time.Millisecond)
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the exit code tells
			if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
				t.Errorf("exit code %d", code)
			}
			if !regexp.MustCompile(`^\d+ of 400 refresh tokens revoked, and \d+ failed or in doubt.\n\d+ not tried: the same command goes on with them.\nycauth: interrupted\n$`).MatchString(stderr.String()) {
				t.Errorf("stderr:\n%s", &stderr)
			}
			if format == outputTable {
				if stdout.Len() > 0 {
					t.Errorf("stdout:\n%s", &stdout)
				}
			} else {
				var out revokedJSON
				if err := json.Unmarshal([]byte(stdout.String()), &out); err != nil {
					t.Fatal(err)
				}
				if len(out.Revoked) < 10 || len(out.Revoked)+len(out.Failed)+out.NotTried != total {
					t.Errorf("%d revoked, %d failed, %d not tried", len(out.Revoked), len(out.Failed), out.NotTried)
				}
			}
			h.srv.ClearFaults()
			h.must(0, args...)
			if r := h.must(0, append(args, "--dry-run")...); !strings.HasPrefix(r.stderr, "0 refresh tokens would be revoked") {
				t.Error(r)
			}
		})
	}
}

// TestConcurrency: as many requests at a time as the flag says.
func TestConcurrency(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	h := newHome(t, nil)
	h.must(0, "login")
	h.srv.Seed(24, func(_ int, s *iamtest.Seed) { s.ProtectionLevel = iamtest.NoProtection })
	h.srv.Inject(iamtest.EndpointRevoke, iamtest.Slow(100*time.Millisecond), -1)
	proxy := newProxy(t, h.srv.URL, func(path string) func() {
		if !strings.HasSuffix(path, ":revoke") {
			return func() {}
		}
		mu.Lock()
		defer mu.Unlock()
		now++
		most = max(most, now)
		return func() {
			mu.Lock()
			defer mu.Unlock()
			now--
		}
	})
	h.must(0, "revoke", "--protection-level", "NO_PROTECTION", "--yes", "--concurrency", "12", "--iam-endpoint", proxy)
	if most <= 4 || most > 12 {
		t.Errorf("%d requests at a time, want up to 12", most)
	}
}

// TestProgress: a person sees how far it is, a log stays short.
func TestProgress(t *testing.T) {
	for want, got := range map[string]string{
		"5 of 20":                                progressText(5, 20, 0),
		"0 of 20":                                progressText(0, 20, time.Second),
		"50 of 20000, 25.0/s, about 13 min left": progressText(50, 20000, 2*time.Second),
		"20 of 20, 0.5/s, about 0 s left":        progressText(20, 20, 40*time.Second),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	h := newHome(t, nil)
	h.must(0, "login")
	h.srv.Seed(40, func(_ int, s *iamtest.Seed) { s.ProtectionLevel = iamtest.NoProtection })
	h.srv.Inject(iamtest.EndpointRevoke, iamtest.Slow(50*time.Millisecond), -1)
	for _, term := range []string{"xterm", "dumb"} {
		cmd := h.command("ycauth", "revoke", "--protection-level", "NO_PROTECTION", "--yes")
		cmd.Env = append(cmd.Env, "TERM="+term)
		tty, err := pty.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		s := newScreen()
		var buf [4096]byte
		for {
			n, err := tty.Read(buf[:])
			_, _ = s.Write(buf[:n])
			if err != nil {
				break // EIO when the program has ended
			}
		}
		tty.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, s)
		}
		if term == "dumb" {
			visible(t, "a dumb terminal", strings.ReplaceAll(s.String(), "\r\n", "\n"))
		} else if !regexp.MustCompile(`\r\x1b\[K\d+ of 40, [0-9.]+/s, about \d+ s left`).MatchString(s.String()) {
			t.Errorf("no progress:\n%q", s)
		}
		h.srv.Seed(40, func(_ int, s *iamtest.Seed) { s.ProtectionLevel = iamtest.NoProtection })
	}
}

// TestConfirmedAndNoMore: a token that matches and is issued while the question
// is on the screen was not counted, and is not revoked.
func TestConfirmedAndNoMore(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	seed := func(n int) {
		h.srv.Seed(n, func(_ int, s *iamtest.Seed) { s.ClientInstanceInfo = "app/1.0" })
	}
	seed(2)
	cmd := h.command("ycauth", "revoke", "--client-instance-info", "app/1.0")
	tty, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	s := newScreen()
	go func() {
		defer close(s.end)
		_, _ = io.Copy(s, tty) // EIO when the program has ended
	}()
	if _, _, err := s.wait(t.Context(), `Type "revoke 2" to go on:`, 0); err != nil {
		t.Fatal(err)
	}
	seed(1)
	if _, err := io.WriteString(tty, "revoke 2\r"); err != nil {
		t.Fatal(err)
	}
	<-s.end
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.String(), "2 refresh tokens revoked.") {
		t.Errorf("the screen:\n%s", s)
	}
	if r := h.must(0, "revoke", "--client-instance-info", "app/1.0", "--dry-run"); !strings.HasPrefix(r.stderr, "1 refresh token would be revoked") {
		t.Errorf("the token that nobody was asked about: %v", r)
	}
}

// TestOlderThanByTheServer: the clock of this computer decides about no token, and
// where it disagrees with the server's, nothing is revoked.
func TestOlderThanByTheServer(t *testing.T) {
	undated := func(h http.Header) { h["Date"] = nil }
	for name, c := range map[string]struct {
		ahead string
		edit  func(http.Header)
		code  int
		says  string
	}{
		"right":             {"0s", nil, exitOK, `^1 refresh token revoked`},
		"10 days ahead":     {"240h", nil, exitFailure, `computer's clock says 20\S+Z, and the server's 20\S+Z\. Nothing was revoked`},
		"10 days behind":    {"-240h", nil, exitFailure, `computer's clock says 20\S+Z, and the server's 20\S+Z\. Nothing was revoked`},
		"10 minutes ahead":  {"10m", nil, exitFailure, `and the server's`},
		"no Date":           {"0s", undated, exitFailure, `computer's clock says 20\S+Z, and the server does not say`},
		"ahead and no Date": {"240h", undated, exitFailure, `Nothing was revoked`},
		"an old response":   {"0s", func(h http.Header) { h.Set("Age", "600") }, exitFailure, `the server does not say`},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t, nil)
			h.must(0, "login")
			h.srv.Seed(3, func(i int, s *iamtest.Seed) {
				s.ClientInstanceInfo, s.ProtectionLevel = "ycauth/1.0", iamtest.NoProtection
				s.LastUsedAt = h.srv.Now().Add(-time.Duration(i) * 3 * 24 * time.Hour) // 0, 3 and 6 days
				s.CreatedAt = s.LastUsedAt.Add(-time.Hour)
			})
			if err := os.WriteFile(h.clock, []byte(c.ahead), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"revoke", "--older-than", "5d", "--yes"}
			if c.edit != nil {
				args = append(args, "--iam-endpoint", headerProxy(t, h.srv.URL, c.edit))
			}
			r := h.run(args...)
			if r.code != c.code || !regexp.MustCompile(c.says).MatchString(r.stderr) {
				t.Errorf("want exit code %d and %q, got %v", c.code, c.says, r)
			}
			want := 0
			if c.code == exitOK {
				want = 1
			}
			if got := h.srv.Count(iamtest.EndpointRevoke); got != want {
				t.Errorf("%d tokens were revoked, want %d", got, want)
			}
			if got := h.srv.LiveGrants(); got != 4-want {
				t.Errorf("%d grants are left", got)
			}
		})
	}
}

// TestOlderThanLeavesTheSessionAlone: however short the age is, and however long the
// session was not renewed.
func TestOlderThanLeavesTheSessionAlone(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*iamtest.Options)
		renew bool
	}{
		"since the login":             {nil, false},
		"since a renewal":             {nil, true},
		"that keeps its token":        {func(o *iamtest.Options) { o.Rotation = iamtest.RotateNever }, true},
		"that keeps its token, fresh": {func(o *iamtest.Options) { o.Rotation = iamtest.RotateNever }, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t, c.edit)
			h.must(0, "login")
			if c.renew {
				h.advance(30 * time.Hour)
				h.must(0, "token", "--renew")
			}
			h.advance(30 * time.Minute)
			h.srv.Seed(1, func(_ int, s *iamtest.Seed) {
				s.ID, s.ClientInstanceInfo, s.ProtectionLevel = "other", "ycauth/1.0", iamtest.InsecureKeyDPoP
				s.LastUsedAt = h.srv.Now().Add(-20 * 24 * time.Hour)
				s.CreatedAt = s.LastUsedAt
			})
			r := h.must(0, "revoke", "--older-than", "10m", "--yes")
			if !strings.Contains(r.stderr, "1 refresh token left alone") || !strings.Contains(r.stdout, "other") {
				t.Error(r)
			}
			if h.srv.LiveGrants() != 1 {
				t.Errorf("%d grants are left", h.srv.LiveGrants())
			}
			h.must(0, "token", "--renew")
		})
	}
}

// headerProxy passes requests on, and edits the headers of the responses.
func headerProxy(t *testing.T, target string, edit func(http.Header)) (address string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(u)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pass.ServeHTTP(editedHeader{w, edit}, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

type editedHeader struct {
	http.ResponseWriter
	edit func(http.Header)
}

func (w editedHeader) WriteHeader(code int) {
	w.edit(w.Header())
	w.ResponseWriter.WriteHeader(code)
}
