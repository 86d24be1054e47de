// Package matrix tests every fault that the embedded IAM can produce with
// every request of this module: each cell must have the right recovery or the right
// error, and no secret.
package matrix

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

func TestMain(m *testing.M) {
	// The cells wait for retries, they do not compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "40"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// rig is a user of one server, whose every word is kept.
type rig struct {
	iam    *iamtest.Server
	client *oauth.Client
	api    *refreshtoken.Client
	close  func()

	mu    sync.Mutex
	words bytes.Buffer // logs, events and errors
}

func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.words.Write(p)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	iam, err := iamtest.New(iamtest.Options{
		// Nonces are taken and not asked for, so that a fault meets the request
		// itself and not the challenge before it.
		Nonces: iamtest.NoncesOptional, NonceLife: 1000 * time.Hour, Rotation: iamtest.RotateAlways, OperationPolls: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{iam: iam}
	logger := slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := iam.OAuthConfig(prover)
	cfg.Logger, cfg.Observer = logger, func(e oauth.Event) { fmt.Fprintf(r, "%+v\n", e) }
	if r.client, err = oauth.New(cfg); err != nil {
		t.Fatal(err)
	}
	hc := &http.Client{Transport: &dpop.Transport{Source: r.client.TokenSource(), Base: cfg.HTTPClient.Transport}}
	r.api = refreshtoken.NewClient(hc, refreshtoken.WithEndpoint(iam.IAMEndpoint()),
		refreshtoken.WithOperationEndpoint(iam.OperationEndpoint()), refreshtoken.WithLogger(logger),
		refreshtoken.WithPolling(refreshtoken.Polling{Initial: 10 * time.Millisecond}))
	r.close = func() {
		if err := r.client.TokenSource().Close(); err != nil {
			t.Error(err)
		}
		iam.Close()
	}
	return r
}

func (r *rig) login(ctx context.Context) error {
	_, err := r.client.Login(ctx, oauth.LoginOptions{Out: r, OpenURL: r.iam.OpenURL})
	return err
}

// request is a column: what is tried, at which endpoint the fault waits, and what
// has to go before.
type request struct {
	name     string
	endpoint iamtest.Endpoint
	prepare  func(t *testing.T, r *rig)
	try      func(ctx context.Context, r *rig) error
}

func mustLogin(t *testing.T, r *rig) {
	t.Helper()
	if err := r.login(t.Context()); err != nil {
		t.Fatalf("login before the fault: %v", err)
	}
}

var requests = []request{
	{"first login", iamtest.EndpointToken, func(*testing.T, *rig) {}, func(ctx context.Context, r *rig) error { return r.login(ctx) }},
	{"renewal", iamtest.EndpointToken, func(t *testing.T, r *rig) {
		mustLogin(t, r)
		r.iam.Advance(13 * time.Hour)
	}, func(ctx context.Context, r *rig) error {
		_, err := r.client.TokenSource().TokenContext(ctx)
		return err
	}},
	{"List", iamtest.EndpointList, mustLogin, func(ctx context.Context, r *rig) error {
		n := 0
		for _, err := range r.api.List(ctx, refreshtoken.ListOptions{}) {
			if err != nil {
				return err
			}
			n++
		}
		if n != 1 {
			return fmt.Errorf("%d tokens listed, want 1", n)
		}
		return nil
	}},
	{"Revoke", iamtest.EndpointRevoke, mustLogin, revoke},
	{"Operation", iamtest.EndpointOperation, mustLogin, revoke},
}

func revoke(ctx context.Context, r *rig) error {
	op, err := r.api.Revoke(ctx, refreshtoken.ByToken(r.iam.Seed(1, nil)[0]))
	if err != nil {
		return err
	}
	res, err := op.Wait(ctx)
	if err == nil && len(res.RefreshTokenIDs) != 1 {
		err = fmt.Errorf("%d tokens revoked, want 1", len(res.RefreshTokenIDs))
	}
	return err
}

// outcome names what a caller can tell an error for.
func outcome(err error) string {
	var login *oauth.LoginRequiredError
	var server *oauth.ServerError
	var api *refreshtoken.APIError
	var response *refreshtoken.ResponseError
	var transport *refreshtoken.TransportError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &login):
		return "log in again: " + string(login.Reason)
	case errors.Is(err, oauth.ErrOutcomeUnknown):
		return "outcome unknown"
	case errors.Is(err, oauth.ErrMalformedResponse) && errors.As(err, &server) && server.Temporary():
		return fmt.Sprintf("temporary %d", server.Status)
	case errors.Is(err, oauth.ErrMalformedResponse):
		return "malformed answer"
	case errors.As(err, &server):
		return server.Code
	case errors.As(err, &api):
		return api.Code.String()
	case errors.As(err, &response):
		return "malformed answer"
	case errors.As(err, &transport):
		return "transport"
	}
	return "untyped: " + err.Error()
}

// want is what each cell has to come to: for each request once and for ever.
//
// A lost answer to a code is an error at once, because a code must not be sent
// twice. A lost answer to a refresh token that was rotated is found out at the
// next attempt, which this server takes for a theft, and ends the session. Status
// 500 of the API is no reason to try again; of the token endpoint it is. An
// Operation that answers a revocation by the token itself cannot be told from
// somebody else's, because only the server knows the token's ID.
var want = []struct{ fault, outcomes string }{
	{"request lost", "outcome unknown | outcome unknown | ok | outcome unknown | ok | transport | ok | transport | ok | transport"},
	{"answer lost", "outcome unknown | outcome unknown | log in again: outcome_unknown | outcome unknown | ok | transport | ok | transport | ok | transport"},
	{"status 500", "temporary 500 | temporary 500 | ok | temporary 500 | INTERNAL | INTERNAL | INTERNAL | INTERNAL | INTERNAL | INTERNAL"},
	{"status 503", "ok | temporary 503 | ok | temporary 503 | ok | UNAVAILABLE | ok | UNAVAILABLE | ok | UNAVAILABLE"},
	{"status 503, Retry-After 1s", "ok | temporary 503 | ok | temporary 503 | ok | UNAVAILABLE | ok | UNAVAILABLE | ok | UNAVAILABLE"},
	{"status 504, after the effect", "temporary 504 | temporary 504 | log in again: outcome_unknown | temporary 504 | ok | DEADLINE_EXCEEDED | ok | DEADLINE_EXCEEDED | ok | DEADLINE_EXCEEDED"},
	{"status 429", "ok | temporary 429 | ok | temporary 429 | ok | RESOURCE_EXHAUSTED | ok | RESOURCE_EXHAUSTED | ok | RESOURCE_EXHAUSTED"},
	{"status 429, Retry-After 1s", "ok | temporary 429 | ok | temporary 429 | ok | RESOURCE_EXHAUSTED | ok | RESOURCE_EXHAUSTED | ok | RESOURCE_EXHAUSTED"},
	{"slow 200ms", "ok | ok | ok | ok | ok | ok | ok | ok | ok | ok"},
	{"slow 200ms, after the effect", "ok | ok | ok | ok | ok | ok | ok | ok | ok | ok"},
	{"truncated body", "outcome unknown | outcome unknown | log in again: outcome_unknown | outcome unknown | ok | transport | ok | transport | ok | transport"},
	{"oversized body", "ok | ok | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer"},
	{"empty body", "malformed answer | malformed answer | malformed answer | malformed answer | ok | malformed answer | ok | malformed answer | ok | malformed answer"},
	{"HTML 200", "malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer"},
	{"HTML 404", "ok | temporary 404 | ok | temporary 404 | UNIMPLEMENTED | UNIMPLEMENTED | UNIMPLEMENTED | UNIMPLEMENTED | UNIMPLEMENTED | UNIMPLEMENTED"},
	{"HTML 502", "temporary 502 | temporary 502 | ok | temporary 502 | ok | UNAVAILABLE | ok | UNAVAILABLE | ok | UNAVAILABLE"},
	{"redirect 307", "malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer"},
	{"wrong content type", "ok | ok | ok | ok | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer"},
	{"duplicate member", "ok | ok | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer"},
	{"unknown members", "ok | ok | ok | ok | ok | ok | ok | ok | ok | ok"},
	{"nonce challenge", "ok | use_dpop_nonce | ok | use_dpop_nonce |  |  |  |  |  | "},
	{"nonce challenge, 2 in a row", "ok | use_dpop_nonce | ok | use_dpop_nonce |  |  |  |  |  | "},
	{"repeated page token", " |  |  |  | ok | malformed answer |  |  |  | "},
	{"operation not found", " |  |  |  |  |  |  |  | NOT_FOUND | NOT_FOUND"},
	{"foreign operation", " |  |  |  |  |  | ok | ok | malformed answer | malformed answer"},
	{"echo", " |  |  |  | ok | ok | malformed answer | malformed answer | malformed answer | malformed answer"},
	{"echo 400", "REDACTED | REDACTED | REDACTED | REDACTED | INVALID_ARGUMENT | INVALID_ARGUMENT | INVALID_ARGUMENT | INVALID_ARGUMENT | INVALID_ARGUMENT | INVALID_ARGUMENT"},
	{"echo 307", "malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer | malformed answer"},
	{"clock skew 5m0s", "ok | ok | ok | ok | ok | ok | ok | ok | ok | ok"},
	{"clock skew -5m0s", "ok | ok | ok | ok | ok | ok | ok | ok | ok | ok"},
}

func TestEveryFaultAtEveryRequest(t *testing.T) {
	var mu sync.Mutex
	got := map[string]string{}
	t.Run("cells", func(t *testing.T) {
		for _, f := range iamtest.AllFaults() {
			for _, q := range requests {
				if !f.AppliesTo(q.endpoint) {
					continue
				}
				for _, n := range []int{1, -1} {
					t.Run(cellName(f, q, n), func(t *testing.T) {
						t.Parallel()
						r := newRig(t)
						defer r.close()
						q.prepare(t, r)
						if err := inject(r.iam, q.endpoint, f, n); err != nil {
							t.Fatal(err)
						}
						ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
						defer cancel()
						err := q.try(ctx, r)
						mu.Lock()
						got[cellName(f, q, n)] = outcome(err)
						mu.Unlock()
						fmt.Fprintf(r, "%v %+v %#v\n", err, err, err)
						for _, secret := range r.iam.Secrets() {
							if strings.Contains(r.words.String(), secret) {
								t.Errorf("a secret (%.6s…) is in\n%s", secret, r.words.String())
							}
						}
						if n := r.iam.Count(iamtest.EndpointElsewhere); n != 0 {
							t.Errorf("%d requests followed a redirect", n)
						}
						happened(t, r.iam, q.endpoint, f)
						recovers(t, r, q, f)
					})
				}
			}
		}
	})
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "FAULT\t")
	for _, q := range requests {
		fmt.Fprintf(w, "%s: once\tand for ever\t", q.name)
	}
	fmt.Fprintln(w)
	for _, f := range iamtest.AllFaults() {
		fmt.Fprintf(w, "%s\t", f)
		for _, q := range requests {
			fmt.Fprintf(w, "%s\t%s\t", got[cellName(f, q, 1)], got[cellName(f, q, -1)])
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	t.Logf("outcomes\n%s", table.String())

	all := iamtest.AllFaults()
	if len(all) != len(want) {
		t.Fatalf("%d faults, and outcomes for %d", len(all), len(want))
	}
	for i, f := range all {
		var outcomes []string
		for _, q := range requests {
			outcomes = append(outcomes, got[cellName(f, q, 1)], got[cellName(f, q, -1)])
		}
		if got := strings.Join(outcomes, " | "); f.String() != want[i].fault || got != want[i].outcomes {
			t.Errorf("%s: %s\nwant %s: %s", f, got, want[i].fault, want[i].outcomes)
		}
	}
}

// inject lets a clock be wrong everywhere: it is one server.
func inject(iam *iamtest.Server, e iamtest.Endpoint, f iamtest.Fault, n int) error {
	if !strings.HasPrefix(f.String(), "clock skew") {
		return iam.Inject(e, f, n)
	}
	var errs []error
	for _, e := range []iamtest.Endpoint{
		iamtest.EndpointAuthorize, iamtest.EndpointToken, iamtest.EndpointList, iamtest.EndpointRevoke, iamtest.EndpointOperation,
	} {
		errs = append(errs, iam.Inject(e, f, n))
	}
	return errors.Join(errs...)
}

// happened: an outcome of a fault that no request met shows nothing.
func happened(t *testing.T, iam *iamtest.Server, e iamtest.Endpoint, f iamtest.Fault) {
	t.Helper()
	for _, r := range iam.Requests() {
		if r.Endpoint == e && r.Fault == f.String() {
			return
		}
	}
	t.Errorf("no request met the fault")
}

func cellName(f iamtest.Fault, q request, n int) string {
	when := "once"
	if n < 0 {
		when = "for ever"
	}
	return q.name + ", " + f.String() + ", " + when
}

// recovers: when the fault is over, everything works again; after a rotation
// whose answer was lost, once the user has logged in.
func recovers(t *testing.T, r *rig, q request, f iamtest.Fault) {
	t.Helper()
	r.iam.ClearFaults()
	r.iam.Advance(14 * time.Hour) // past every cooldown, and the token
	_, err := r.client.TokenSource().TokenContext(t.Context())
	if errors.Is(err, oauth.ErrLoginRequired) {
		if q.endpoint == iamtest.EndpointToken && (f == f.AfterEffect() || q.name == "first login") {
			err = r.login(t.Context())
		}
	}
	if err == nil {
		err = q.try(t.Context(), r)
	}
	if err != nil {
		t.Errorf("after the fault: %v", err)
	}
}
