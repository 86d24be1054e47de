//go:build unix

package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/piv"
)

// TestScripts runs ycauth as its users do. The command iam of the scripts is the
// server that it talks to.
func TestScripts(t *testing.T) {
	testscript.Run(t, scripts("testdata/script"))
}

// scripts are the commands and the environment of all scripts.
func scripts(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			clock := filepath.Join(env.WorkDir, "clock")
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Setenv("TEST_CLOCK", clock)
			env.Setenv("BROWSER", "browser")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would have every program wait a second
			iam := &iamCommand{clock: clock}
			env.Values[iamKey{}] = iam
			env.Defer(iam.stop)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"iam":      runIAM,
			"parallel": runParallel,
			"exits":    runExits,
			"paste":    runPaste,
			"terminal": runTerminal,
		},
	}
}

type iamKey struct{}

// iamCommand is the script command iam.
type iamCommand struct {
	srv   *iamtest.Server
	maker piv.Trust // of the card, if the test has one
	clock string    // file that tells ycauth how far the server's clock is ahead
	ahead time.Duration

	strayed atomic.Int32 // requests with credentials that another server got
}

func (c *iamCommand) stop() {
	if c.srv != nil {
		c.srv.Close()
	}
}

func runIAM(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: iam COMMAND…")
	}
	c := ts.Value(iamKey{}).(*iamCommand)
	commands := map[string]func(*testscript.TestScript, []string){
		"start": c.start, "advance": c.advance, "fault": c.fault, "count": c.count, "seed": c.seed,
		"secrets-not-in": c.secretsNotIn, "token-in": c.tokenIn, "revoke-session": c.revokeSession,
		"refresh-token": c.refreshToken, "live": c.live, "authorized": c.authorized,
		"revoke-access": c.revokeAccess, "elsewhere": c.elsewhere, "strayed": c.checkStrayed,
		"stop":         func(*testscript.TestScript, []string) { c.stop() },
		"clear-faults": func(*testscript.TestScript, []string) { c.srv.ClearFaults() },
		"reset":        func(*testscript.TestScript, []string) { c.srv.ResetRequests() },
	}
	run, ok := commands[args[0]]
	if !ok {
		ts.Fatalf("iam has no command %s", args[0])
	}
	run(ts, args[1:])
}

// iam start [OPTION…] starts the server and points ycauth to it.
func (c *iamCommand) start(ts *testscript.TestScript, options []string) {
	o := iamtest.Options{Nonces: iamtest.NoncesRequired, AllowUnbound: true}
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "no-nonces":
			o.Nonces = iamtest.NoncesOff
		case "refresh-tokens-off":
			o.RefreshTokensOff = true
		case "drop-offline-access":
			o.DropOfflineAccess = true
		case "deny-login":
			o.DenyLogin = true
		case "sparse-pages":
			o.SparsePages = true
		case "operation-polls":
			o.OperationPolls = atoi(ts, value)
		case "operation-error":
			o.OperationError = &iamtest.Status{Code: 13, Message: value} // INTERNAL
		case "role":
			o.Roles = map[string][]string{"ajeiamtestuser000001": {value}}
		case "client":
			o.Clients = append(o.Clients, iamtest.Client{ID: value})
		default:
			ts.Fatalf("iam start has no option %s", option)
		}
	}
	o.VerifyAttestation = func(chain []*x509.Certificate) bool {
		at, err := piv.VerifyAttestation(chain, c.maker)
		return err == nil && at.Secure()
	}
	srv, err := iamtest.New(o)
	ts.Check(err)
	c.stop()
	c.srv = srv
	ts.Setenv("YCAUTH_ENDPOINT", srv.URL)
}

// iam advance DURATION moves the clocks of the server and of ycauth.
func (c *iamCommand) advance(ts *testscript.TestScript, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	c.srv.Advance(d)
	c.ahead += d
	ts.Check(os.WriteFile(c.clock, []byte(c.ahead.String()), 0o600))
}

// iam fault ENDPOINT FAULT [N] makes the next N requests go wrong; -1 is all.
func (c *iamCommand) fault(ts *testscript.TestScript, args []string) {
	n := 1
	if len(args) == 3 {
		n = atoi(ts, args[2])
	}
	for _, f := range iamtest.AllFaults() {
		if f.String() == args[1] {
			ts.Check(c.srv.Inject(iamtest.Endpoint(args[0]), f, n))
			return
		}
	}
	if status, err := strconv.Atoi(args[1]); err == nil {
		ts.Check(c.srv.Inject(iamtest.Endpoint(args[0]), iamtest.HTTPStatus(status, 0), n))
		return
	}
	ts.Fatalf("there is no fault %q among %v", args[1], iamtest.AllFaults())
}

// iam count ENDPOINT[:GRANT] N checks how many requests came since the start, or
// since iam reset.
func (c *iamCommand) count(ts *testscript.TestScript, args []string) {
	endpoint, grant, some := strings.Cut(args[0], ":")
	var grants []string
	if some {
		grants = []string{grant}
	}
	if got, want := c.srv.Count(iamtest.Endpoint(endpoint), grants...), atoi(ts, args[1]); got != want {
		ts.Fatalf("%d requests reached %s, want %d", got, args[0], want)
	}
}

// iam seed N [NAME=VALUE…] gives the server N refresh tokens.
func (c *iamCommand) seed(ts *testscript.TestScript, args []string) {
	c.srv.Seed(atoi(ts, args[0]), func(i int, t *iamtest.Seed) {
		for _, a := range args[1:] {
			name, value, _ := strings.Cut(a, "=")
			switch name {
			case "id":
				t.ID = value + strconv.Itoa(i)
			case "client":
				t.ClientID = value
			case "info":
				t.ClientInstanceInfo = value
			case "subject":
				t.SubjectID = value
			case "level":
				t.ProtectionLevel = iamtest.ProtectionLevel(value)
			case "created":
				t.CreatedAt = c.ago(ts, value)
			case "used":
				t.LastUsedAt = c.ago(ts, value)
			default:
				ts.Fatalf("iam seed has no %s", name)
			}
		}
	})
}

func (c *iamCommand) ago(ts *testscript.TestScript, age string) time.Time {
	d, err := time.ParseDuration(age)
	ts.Check(err)
	return c.srv.Now().Add(-d)
}

// iam secrets-not-in FILE… searches for everything that the server issued or was
// sent, and for the private keys.
func (c *iamCommand) secretsNotIn(ts *testscript.TestScript, files []string) {
	secrets := c.srv.Secrets()
	if len(secrets) == 0 {
		ts.Fatalf("there are no secrets yet")
	}
	for _, file := range files {
		content := ts.ReadFile(file)
		for _, s := range secrets {
			if strings.Contains(content, s) {
				ts.Fatalf("%s holds the secret %.6s…", file, s)
			}
		}
		if strings.Contains(content, "PRIVATE KEY") {
			ts.Fatalf("%s holds a private key", file)
		}
	}
}

// iam token-in FILE checks that the file is an IAM token of the server and
// nothing else.
func (c *iamCommand) tokenIn(ts *testscript.TestScript, args []string) {
	if c.srv.AccessTokenExpiry(strings.TrimSuffix(ts.ReadFile(args[0]), "\n")).IsZero() {
		ts.Fatalf("%s is no valid IAM token", args[0])
	}
}

// session is what the profile has stored.
func (c *iamCommand) session(ts *testscript.TestScript, profile string) oauth.Session {
	data, err := os.ReadFile(filepath.Join(ts.Getenv("XDG_CONFIG_HOME"), "ycauth", "sessions", profile+".json"))
	ts.Check(err)
	s, err := oauth.DecodeSession(data)
	ts.Check(err)
	return s
}

// iam revoke-session [PROFILE] revokes the profile's refresh token behind its
// back.
func (c *iamCommand) revokeSession(ts *testscript.TestScript, args []string) {
	profile := strings.Join(append(args, defaultProfile)[:1], "")
	if !c.srv.RevokeRefreshToken(c.session(ts, profile).RefreshToken.Reveal()) {
		ts.Fatalf("the server does not know the session")
	}
}

// iam revoke-access revokes the IAM token of the default profile, and nothing else.
func (c *iamCommand) revokeAccess(ts *testscript.TestScript, _ []string) {
	if !c.srv.RevokeAccessToken(c.session(ts, defaultProfile).AccessToken.Reveal()) {
		ts.Fatalf("the server does not know the token")
	}
}

// iam elsewhere NAME starts a server of another cloud, whose address NAME has from
// then on.
func (c *iamCommand) elsewhere(ts *testscript.TestScript, args []string) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			c.strayed.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code": 5, "message": "not found", "details": []}`)
	}))
	ts.Defer(other.Close)
	ts.Setenv(args[0], other.URL)
}

// iam strayed N checks how many requests with credentials came there.
func (c *iamCommand) checkStrayed(ts *testscript.TestScript, args []string) {
	if got, want := int(c.strayed.Load()), atoi(ts, args[0]); got != want {
		ts.Fatalf("%d requests had credentials for another server, want %d", got, want)
	}
}

// iam refresh-token PROFILE FILE writes the profile's refresh token into a file.
func (c *iamCommand) refreshToken(ts *testscript.TestScript, args []string) {
	token := c.session(ts, args[0]).RefreshToken.Reveal()
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(token+"\n"), 0o600))
}

// iam live N checks how many grants can be used.
func (c *iamCommand) live(ts *testscript.TestScript, args []string) {
	if got, want := c.srv.LiveGrants(), atoi(ts, args[0]); got != want {
		ts.Fatalf("%d grants are live, want %d", got, want)
	}
}

// iam authorized JSON checks members of the last authorization request.
func (c *iamCommand) authorized(ts *testscript.TestScript, args []string) {
	for _, r := range c.srv.Requests() {
		if r.Endpoint != iamtest.EndpointAuthorize {
			continue
		}
		data, err := json.Marshal(r)
		ts.Check(err)
		if strings.Contains(string(data), args[0]) {
			return
		}
	}
	ts.Fatalf("no authorization request has %s", args[0])
}

func atoi(ts *testscript.TestScript, s string) int {
	n, err := strconv.Atoi(s)
	ts.Check(err)
	return n
}

// exits CODE PROGRAM… is exec of a program that ends with an exit code.
func runExits(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if want := atoi(ts, args[0]); neg || got != want {
		ts.Fatalf("the exit code is %d, want %d", got, want)
	}
}

// environ is the environment of a program that a script command starts itself.
func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{
		"PATH", "HOME", "XDG_CONFIG_HOME", "TEST_CLOCK", "BROWSER", "NO_COLOR", "TERM", "GOCOVERDIR", "GORACE", "TEST_CARD_MAKER",
		"KUBERNETES_EXEC_INFO", "YCAUTH_ENDPOINT", "YCAUTH_PROFILE",
	} {
		if value := ts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// parallel N FILE COMMAND… runs N processes at once. All have to succeed and
// print the same, which FILE then holds.
func runParallel(ts *testscript.TestScript, neg bool, args []string) {
	n := atoi(ts, args[0])
	path, err := exec.LookPath(args[2])
	ts.Check(err)
	outputs, errs := make([][]byte, n), make([]error, n)
	env := environ(ts)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			cmd := exec.Command(path, args[3:]...)
			cmd.Env = env
			outputs[i], errs[i] = cmd.Output()
		})
	}
	wg.Wait()
	for i := range n {
		ts.Check(errs[i])
		if string(outputs[i]) != string(outputs[0]) {
			ts.Fatalf("process %d printed something else than process 0", i)
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), outputs[0], 0o600))
}
