//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// slow is how long a token request takes in these tests: long enough that the
// signal comes in the middle of it.
const slow = 2 * time.Second

// build makes the program, once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ycauth-service-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "service")
	built = path
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// A process is the program, as it is deployed.
type process struct {
	cmd *exec.Cmd
	url string
	log *strings.Builder // to be read after wait
	eof chan struct{}
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, path, append(args, "-listen", "127.0.0.1:0", "-announce", "0s")...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, log: new(strings.Builder), eof: make(chan struct{})}
	t.Cleanup(func() {
		cancel() // kills by process id
		<-p.eof
		_ = cmd.Wait()
	})
	address := make(chan string, 1)
	go func() {
		defer close(p.eof)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.log.WriteString(lines.Text() + "\n")
			if _, a, ok := strings.Cut(lines.Text(), "msg=serving address="); ok {
				address <- a
			}
		}
	}()
	select {
	case a := <-address:
		p.url = "http://" + a
	case <-p.eof:
		t.Fatalf("the service did not start:\n%s", p.log)
	}
	return p
}

// terminate sends SIGTERM, twice, as impatient supervisors do, and waits for the
// end.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	for range 2 {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	<-p.eof
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v after\n%s", err, p.log)
	}
}

// age makes the stored token an hour short of its 12: stale, and not expired.
func age(t *testing.T, cfg config) oauth.Session {
	t.Helper()
	store, err := filestore.New(cfg.sessions, cfg.profile)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
		s.Obtained, s.Expiry = s.Obtained.Add(-11*time.Hour), s.Expiry.Add(-11*time.Hour)
		return s, nil
	}); err != nil {
		t.Fatal(err)
	}
	return stored(t, cfg)
}

// awaitFault waits until the injected fault has begun: the request is in flight.
func awaitFault(t *testing.T, iam *iamtest.Server) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := bounded(t); iam.PendingFaults() > 0; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("no token request")
		}
	}
}

// SIGTERM in the middle of a rotation: the process ends with 0, and the refresh
// token that the server gave is in the store, and good.
func TestTerminatedDuringRotation(t *testing.T) {
	for _, tt := range []struct {
		name  string
		waits bool // the request waits for the rotation
	}{
		{"behind a request that was answered", false},
		{"that a request waits for", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			iam := newIAM(t, time.Now) // the process has no other clock
			cfg := newConfig(t, iam)
			before := stored(t, cfg)
			if tt.waits {
				iam.RevokeAccessToken(before.AccessToken.Reveal())
			} else {
				before = age(t, cfg)
			}
			p := startProcess(t, "-iam", iam.URL, "-api", cfg.api, "-key", cfg.keyFile, "-sessions", cfg.sessions, "-drain", "30s")
			// The first one who asks adopts the stored token; it is the next one
			// who finds it stale, or refused.
			if status, body, err := get(bounded(t), p.url+"/readyz"); err != nil || status != 200 {
				t.Fatalf("%d %s, %v", status, body, err)
			}
			iam.Inject(iamtest.EndpointToken, iamtest.Slow(slow), 1)

			type reply struct {
				status int
				err    error
			}
			replied := make(chan reply, 1)
			go func() {
				status, _, err := get(bounded(t), p.url+"/")
				replied <- reply{status, err}
			}()
			if !tt.waits {
				if got := <-replied; got.err != nil || got.status != 200 {
					t.Fatalf("%+v", got)
				}
			}
			awaitFault(t, iam)
			if got := stored(t, cfg); got.RefreshToken != before.RefreshToken {
				t.Fatal("the rotation is over already: this test proves nothing")
			}
			p.terminate(t)
			if tt.waits {
				if got := <-replied; got.err != nil || got.status != 200 {
					t.Errorf("the request that ran got %+v", got)
				}
			}

			after := stored(t, cfg)
			if after.RefreshToken == before.RefreshToken || after.Generation != before.Generation+1 {
				t.Errorf("the store has generation %d after %d", after.Generation, before.Generation)
			}
			if info := iam.Introspect(after.RefreshToken.Reveal()); info.GrantEnded != "" || info.State != iamtest.TokenCurrent {
				t.Errorf("the stored refresh token: %+v", info)
			}
			if log := p.log.String(); !strings.Contains(log, "rotated=true") || !strings.HasSuffix(log, "msg=stopped\n") {
				t.Errorf("log:\n%s", log)
			}
			// The next process goes on from there.
			next := start(t, cfg)
			defer next.end(t)
			next.want(t, "/readyz", 200)
			next.want(t, "/", 200)
		})
	}
}

func TestDemo(t *testing.T) {
	p := startProcess(t, "-demo")
	ctx := bounded(t)
	for path, want := range map[string]string{"/": `"subject"`, "/readyz": "ready", "/metrics": "ycauth_renewals_total"} {
		if status, body, err := get(ctx, p.url+path); err != nil || status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s, %v", path, status, body, err)
		}
	}
	p.terminate(t)
}
