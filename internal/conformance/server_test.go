package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"
)

const (
	installTime = 3 * time.Minute // npm ci, with an empty cache and a slow registry
	startTime   = time.Minute
	stopTime    = 5 * time.Second
)

func TestMain(m *testing.M) {
	if scenario := os.Getenv(mcpScenarioVar); scenario != "" {
		os.Exit(mcpMain(scenario, os.Args[len(os.Args)-1]))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if dir := installDir; dir != "" {
			_ = os.RemoveAll(dir)
		}
		os.Exit(code)
	}))
}

// A provider is one running authorization server.
type provider struct {
	Issuer    string
	Endpoints struct{ Authorization, Token, Userinfo, Revocation, PAR, Device string }
	Clients   struct{ Native, Basic, Post, Pushing, JWT registration }
	User      struct{ DID, Name, Password string } // of atproto.mjs
}

// A registration is a client as the server knows it. Auth is the name of its
// authentication method as in OpenID Connect Core §9: none, client_secret_basic,
// client_secret_post or private_key_jwt, for which there is a private key.
type registration struct {
	ID, Auth, Secret string
	Key              *jose.JSONWebKey
}

// An exchange is one request as the server received and answered it. It holds
// no secret: of parameters only the names.
type exchange struct {
	Method    string
	Path      string
	Status    int
	Error     string // the code of an OAuth error answer
	Problem   string // its description
	Detail    string // what the server knows of the cause and does not say
	Client    string // client_id, once the client is authenticated
	GrantType string
	Params    []string // names of the query and body parameters, sorted
	Scheme    string   // of the Authorization header
	UserAgent string
	NewNonce  bool // the answer had a DPoP-Nonce header
	Proof     *proofSeen
}

// A proofSeen is what a DPoP header held, and whether it is right by
// RFC 9449 §4.3, checked apart from the server's library.
type proofSeen struct {
	Verified bool
	Problem  string // what is wrong when it is not
	Alg      string
	JKT      string // RFC 7638 SHA-256 thumbprint of the key
	HTM      string
	HTU      string
	JTI      string
	Nonce    bool // the claim is there
	ATH      bool // the claim is there
}

// startProvider runs oidc-provider for t alone until t ends.
func startProvider(t *testing.T) *provider {
	t.Helper()
	return startServer(t, "server.mjs")
}

// startServer runs one of our programs for Node until t ends.
func startServer(t *testing.T, program string) *provider {
	t.Helper()
	dir := installed(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", filepath.Join(dir, program))
	cmd.WaitDelay = stopTime
	var stderr bytes.Buffer // read after Wait only
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer cancel()
		timer := time.AfterFunc(stopTime, cancel) // kills by process id
		defer timer.Stop()
		_ = stdin.Close() // the server ends with its input
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("node: %v\n%s", err, stderr.String())
		}
	})

	p, err := awaitReady(stdout)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// awaitReady reads the line that the server prints when it listens.
func awaitReady(stdout io.Reader) (*provider, error) {
	type result struct {
		line []byte
		err  error
	}
	ready := make(chan result, 1)
	go func() {
		line, err := bufio.NewReader(stdout).ReadBytes('\n')
		ready <- result{line, err}
	}()
	select {
	case r := <-ready:
		if r.err != nil {
			return nil, fmt.Errorf("node ended before it was ready: %w", r.err)
		}
		p := new(provider)
		if err := json.Unmarshal(r.line, p); err != nil {
			return nil, fmt.Errorf("the ready line %q: %w", r.line, err)
		}
		return p, nil
	case <-time.After(startTime):
		return nil, fmt.Errorf("node was not ready within %v", startTime)
	}
}

// installed returns the folder with the packages and programs for Node.
func installed(t *testing.T) string {
	t.Helper()
	needTools(t)
	dir, err := install()
	if err != nil && offline(err) && os.Getenv("CI") != "true" {
		t.Skipf("packages for Node can be installed only with a network: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var installDir string

// install puts the locked packages and our programs into a temporary folder, once
// for all tests, so that the work tree stays clean.
var install = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ycauth-conformance-")
	if err != nil {
		return "", err
	}
	installDir = dir
	for _, name := range []string{"package.json", "package-lock.json", "common.mjs", "server.mjs", "atproto.mjs", "client.mjs"} {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), installTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	cmd.WaitDelay = stopTime
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", errors.Join(err, ctx.Err()), out)
	}
	return dir, nil
})

// offline tells whether npm could not reach its registry.
func offline(err error) bool {
	for _, code := range []string{"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ENETUNREACH", "ETIMEDOUT", "ENOTCACHED"} {
		if strings.Contains(err.Error(), code) {
			return true
		}
	}
	return false
}

// needTools fails the test where Node or npm is missing and CI=true, and skips
// it elsewhere.
func needTools(t *testing.T) {
	t.Helper()
	err := tools()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%v: ./test.sh installs it", err)
	default:
		t.Skipf("%v: ./test.sh installs it, or says what to install", err)
	}
}

// tools reports whether npm and a node on which the server runs are there.
var tools = sync.OnceValue(func() error {
	if _, err := exec.LookPath("npm"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if err := exec.CommandContext(ctx, "node", "-e", "process.exit(fs.globSync ? 0 : 1)").Run(); err != nil {
		return fmt.Errorf("node 22 or newer is needed: %w", err)
	}
	return nil
})

// log returns what the server received since its start or the last forget.
func (p *provider) log(t *testing.T) []exchange {
	t.Helper()
	var log []exchange
	if err := json.Unmarshal(p.control(t, http.MethodGet, "/_test/log", ""), &log); err != nil {
		t.Fatal(err)
	}
	return log
}

// forget empties the log.
func (p *provider) forget(t *testing.T) {
	t.Helper()
	p.control(t, http.MethodDelete, "/_test/log", "")
}

// stopClock stops the server's clock at the start of a minute, so that only
// advance moves it, and returns what it shows.
func (p *provider) stopClock(t *testing.T) time.Time {
	t.Helper()
	var clock struct{ Now int64 }
	if err := json.Unmarshal(p.control(t, http.MethodPost, "/_test/clock", `{"stop":true}`), &clock); err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(clock.Now)
}

// advance puts the server's clock forward. Nonces change every minute and live
// three to four; tokens age as they would.
func (p *provider) advance(t *testing.T, d time.Duration) {
	t.Helper()
	p.control(t, http.MethodPost, "/_test/clock", fmt.Sprintf(`{"advance":%g}`, d.Seconds()))
}

// setAccessTokenTTL sets the life of the access tokens issued from now on.
func (p *provider) setAccessTokenTTL(t *testing.T, d time.Duration) {
	t.Helper()
	p.control(t, http.MethodPut, "/_test/settings", fmt.Sprintf(`{"accessTokenTTL":%g}`, d.Seconds()))
}

// setRequireNonce says whether proofs need a nonce. They do at first.
func (p *provider) setRequireNonce(t *testing.T, required bool) {
	t.Helper()
	p.control(t, http.MethodPut, "/_test/settings", fmt.Sprintf(`{"requireNonce":%t}`, required))
}

// setDeny says whether the user denies what a login asks for.
func (p *provider) setDeny(t *testing.T, deny bool) {
	t.Helper()
	p.control(t, http.MethodPut, "/_test/settings", fmt.Sprintf(`{"deny":%t}`, deny))
}

func (p *provider) control(t *testing.T, method, path, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.Issuer+path, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, answer := send(t, req)
	if resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
	return answer
}
