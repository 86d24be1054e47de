// Package stress tests sessions that many processes share, with the embedded
// IAM, rotation at every renewal and reuse detection, so that a process that sends a
// refresh token twice loses the session.
package stress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/killtest"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// childEnv makes the test binary a child: its value is the part to play, and the
// arguments are the server, the directory and how far the clock is ahead.
const childEnv = "YCAUTH_STRESS_CHILD"

func TestMain(m *testing.M) {
	killtest.Child()
	if part := os.Getenv(childEnv); part != "" {
		if err := child(part, os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// newClient makes the client that parent and children share the session of.
func newClient(server, dir string, ahead time.Duration) (*oauth.Client, error) {
	key, err := dpop.LoadOrGenerateKeyFile(filepath.Join(dir, "dpop.pem"))
	if err != nil {
		return nil, err
	}
	prover, err := dpop.New(key)
	if err != nil {
		return nil, err
	}
	store, err := filestore.New(filepath.Join(dir, "sessions"), "default")
	if err != nil {
		return nil, err
	}
	return oauth.New(oauth.Config{
		Provider: oauth.Provider{
			Name: "iamtest", TokenURL: server + "/oauth/token", AuthURL: server + "/oauth/authorize",
			Scopes: []string{"openid", "offline_access"}, OfflineScope: "offline_access",
		},
		ClientID: oauth.YandexCloudClientID, DPoP: prover, Store: store,
		Clock: func() time.Time { return time.Now().Add(ahead) },
	})
}

func login(ctx context.Context, c *oauth.Client) error {
	_, err := c.Login(ctx, oauth.LoginOptions{OpenURL: func(ctx context.Context, url string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}})
	return err
}

// child plays a part in another process.
func child(part, server, dir, ahead string) error {
	d, err := time.ParseDuration(ahead)
	if err != nil {
		return err
	}
	c, err := newClient(server, dir, d)
	if err != nil {
		return err
	}
	ts := c.TokenSource()
	fmt.Println("ready")
	switch part {
	case "once": // asks for a token when told to
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return err
		}
		tok, err := ts.Token()
		if err != nil {
			return err
		}
		fmt.Println(tok.AccessToken)
		return ts.Close()
	}
	return fmt.Errorf("unknown part %q", part)
}

// process is a child that has said that it is ready.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t *testing.T, part, server, dir string, ahead time.Duration) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], server, dir, ahead.String())
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, in, bufio.NewScanner(out)}
	if !p.out.Scan() || p.out.Text() != "ready" {
		_ = cmd.Process.Kill()
		t.Fatalf("the child said %q: %v", p.out.Text(), cmd.Wait())
	}
	return p
}

func newServer(t *testing.T) *iamtest.Server {
	t.Helper()
	return iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways})
}

func TestManyProcessesMakeOneRequest(t *testing.T) {
	const processes = 64
	const later = 13 * time.Hour // the IAM token has expired
	iam := newServer(t)
	dir := t.TempDir()
	c, err := newClient(iam.URL, dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := login(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	iam.Advance(later)
	iam.ResetRequests()

	children := make([]*process, processes)
	for i := range children {
		children[i] = start(t, "once", iam.URL, dir, later)
	}
	for _, p := range children { // all of them are up, and ask at once
		fmt.Fprintln(p.in)
	}
	tokens := make([]string, processes)
	var wg sync.WaitGroup
	for i, p := range children {
		wg.Go(func() {
			if p.out.Scan() {
				tokens[i] = p.out.Text()
			}
			if err := p.cmd.Wait(); err != nil {
				t.Errorf("process %d: %v: %s", i, err, tokens[i])
			}
		})
	}
	wg.Wait()
	good := 0
	for i, tok := range tokens {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, iam.URL+"/api/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+tok)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK && strings.HasPrefix(tok, "t1.") {
			good++
		} else {
			t.Errorf("the token of process %d is answered with %s", i, resp.Status)
		}
	}
	requests := iam.Count(iamtest.EndpointToken)
	t.Logf("%d processes: %d token request, %d good tokens", processes, requests, good)
	if requests != 1 || good != processes {
		t.Errorf("%d requests and %d good tokens, want 1 and %d", requests, good, processes)
	}
}
