// Quickstart takes a refresh token through its whole life, in seconds and without
// an account: it starts an IAM of its own (package iamtest), logs in, renews,
// lists, revokes, and says in plain words what happens.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -v     also shows every request
//
// The same program works with Yandex Cloud: put [oauth.YandexCloud] in the place
// of the embedded server's provider, and open the login page in a browser.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

func main() {
	verbose := flag.Bool("v", false, "show every request that reaches the server")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// demo is what the steps share.
type demo struct {
	out      io.Writer
	verbose  bool
	iam      *iamtest.Server
	client   *oauth.Client
	api      *http.Client // calls APIs with IAM tokens that are renewed automatically
	tokens   *refreshtoken.Client
	step     int
	shown    int // requests that were shown already
	renewals int
	rotated  int
}

const daysLived = 25 // after which the refresh token has less than a week left

func run(ctx context.Context, out io.Writer, verbose bool) error {
	// The embedded IAM behaves like Yandex Cloud: IAM tokens live 12 hours,
	// refresh tokens 31 days, every proof needs a nonce of the server's.
	iam, err := iamtest.New(iamtest.Options{Nonces: iamtest.NoncesRequired})
	if err != nil {
		return err
	}
	defer iam.Close()
	dir, err := os.MkdirTemp("", "ycauth-quickstart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	d := &demo{out: out, verbose: verbose, iam: iam}
	if err := d.connect(filepath.Join(dir, "dpop.pem")); err != nil {
		return err
	}
	defer d.client.TokenSource().Close()
	for _, step := range []func(context.Context) error{d.login, d.call, d.renew, d.list, d.revoke} {
		if err := step(ctx); err != nil {
			return err
		}
		d.showRequests()
	}
	fmt.Fprintf(out, "\nDone: 1 login, %d renewals (%d with a new refresh token) and 1 revocation took %d requests.\n",
		d.renewals, d.rotated, d.shown)
	return nil
}

// connect makes the key, the client and what stands on it. No request is made.
func (d *demo) connect(keyFile string) error {
	d.say("An IAM server runs in this program, at %s.", d.iam.URL)
	key, err := dpop.LoadOrGenerateKeyFile(keyFile)
	if err != nil {
		return err
	}
	prover, err := dpop.New(key)
	if err != nil {
		return err
	}
	d.say("A key pair was created, in a file that only you can read. Refresh tokens will be bound to it:\n" +
		"a copy of one is of no use without the key. IAM tokens are not bound: a copy works until it expires.")
	d.client, err = oauth.New(oauth.Config{
		Provider:  d.iam.Provider(), // oauth.YandexCloud() in earnest; this one brings a clock that runs faster
		ClientID:  d.iam.ClientID,
		DPoP:      prover,
		UserAgent: "quickstart/1.0",
		Observer:  d.observe,
		// Renew when a call needs it, not behind it, so that the steps below come
		// in order. A service would leave this out.
		Synchronous: true,
	})
	if err != nil {
		return err
	}
	d.api = d.client.HTTPClient()
	d.tokens = refreshtoken.NewClient(d.api,
		refreshtoken.WithEndpoint(d.iam.IAMEndpoint()), refreshtoken.WithOperationEndpoint(d.iam.OperationEndpoint()))
	// Two older logins of the same user, so that there is something to govern.
	d.iam.Seed(2, func(i int, t *iamtest.Seed) {
		t.LastUsedAt = d.iam.Now().Add(-time.Duration(i+1) * 20 * time.Hour)
		t.ClientInstanceInfo = []string{"yc/0.141.0", "old-laptop/0.9"}[i]
		t.ProtectionLevel = []iamtest.ProtectionLevel{iamtest.SecureKeyDPoP, iamtest.NoProtection}[i]
	})
	return nil
}

func (d *demo) observe(e oauth.Event) {
	if e.Kind == oauth.EventRenewed {
		d.renewals++
		if e.Rotated {
			d.rotated++
		}
	}
}

func (d *demo) login(ctx context.Context) error {
	session, err := d.client.Login(ctx, oauth.LoginOptions{OpenURL: d.iam.OpenURL})
	if err != nil {
		return err
	}
	d.say("You logged in. Instead of a browser, a function of the embedded server approved the login.\n"+
		"The IAM token is good until %s, and the refresh token brings the next ones.", clock(session.Expiry))
	return nil
}

func (d *demo) call(ctx context.Context) error {
	if err := d.callAPI(ctx); err != nil {
		return err
	}
	d.say("An API call with the IAM token returned 200 OK.")
	return nil
}

func (d *demo) callAPI(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.iam.URL+"/api/whoami", nil)
	if err != nil {
		return err
	}
	resp, err := d.api.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API returned %s", resp.Status)
	}
	return nil
}

// renew lets three IAM tokens expire. Nobody asks for a renewal: the next call
// of the API does.
func (d *demo) renew(ctx context.Context) error {
	d.say("The clock of the server is set forward three times. Each time the IAM token expires, and the next call renews it.")
	for _, wait := range []time.Duration{13 * time.Hour, 13 * time.Hour, daysLived * 24 * time.Hour} {
		d.iam.Advance(wait)
		before := d.rotated
		if err := d.callAPI(ctx); err != nil {
			return err
		}
		session, err := d.client.Session(ctx)
		if err != nil {
			return err
		}
		what := "the refresh token stays the same"
		if d.rotated > before {
			what = "the refresh token had less than a week left, so the server issued a new one, which was saved"
		}
		fmt.Fprintf(d.out, "   %s later: a new IAM token until %s; %s.\n", humanize(wait), clock(session.Expiry), what)
	}
	return nil
}

func (d *demo) list(ctx context.Context) error {
	d.say("These refresh tokens can act for you:")
	w := tabwriter.NewWriter(d.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "   ID\tAPPLICATION\tPROTECTION\tLAST USED\tEXPIRES")
	for t, err := range d.tokens.List(ctx, refreshtoken.ListOptions{}) {
		if err != nil {
			return err
		}
		used := "never"
		if !t.LastUsedAt.IsZero() {
			used = clock(t.LastUsedAt)
		}
		fmt.Fprintf(w, "   %s\t%s\t%s\t%s\t%s\n", t.ID, t.ClientInstanceInfo, t.ProtectionLevel, used, clock(t.ExpiresAt))
	}
	return w.Flush()
}

func (d *demo) revoke(ctx context.Context) error {
	mine := refreshtoken.ListOptions{Filter: refreshtoken.Filter{ClientInstanceInfo: "quickstart/1.0"}}
	for t, err := range d.tokens.List(ctx, mine) {
		if err != nil {
			return err
		}
		op, err := d.tokens.Revoke(ctx, refreshtoken.ByID(t.ID))
		if err != nil {
			return err
		}
		if _, err := op.Wait(ctx); err != nil {
			return err
		}
		d.say("The refresh token of this program, %s, was revoked.", t.ID)
	}
	d.iam.Advance(13 * time.Hour)
	_, err := d.client.TokenSource().TokenContext(ctx)
	var again *oauth.LoginRequiredError
	if !errors.As(err, &again) {
		return fmt.Errorf("a renewal after the revocation should say: log in again; it said: %w", err)
	}
	d.say("13 hours later the server rejects a renewal, and the error says that you must log in again (%s):\n%v", again.Reason, err)
	return nil
}

// say prints one numbered step.
func (d *demo) say(format string, args ...any) {
	d.step++
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n   ")
	fmt.Fprintf(d.out, "%d. %s\n", d.step, text)
}

// showRequests prints what reached the server since the last time. The server
// records no secrets.
func (d *demo) showRequests() {
	requests := d.iam.Requests()
	for _, r := range requests[d.shown:] {
		if !d.verbose {
			continue
		}
		line := fmt.Sprintf("      %s %s", r.Method, r.Path)
		if r.GrantType != "" {
			line += " " + r.GrantType
		}
		line += fmt.Sprintf(" → %d", r.Status)
		if r.Error != "" {
			line += " " + r.Error
		}
		if r.Proof.Present {
			line += " (with proof of possession)"
		}
		fmt.Fprintln(d.out, line)
	}
	d.shown = len(requests)
}

func clock(t time.Time) string { return t.Local().Format("2 Jan 15:04") }

func humanize(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
	return fmt.Sprintf("%d hours", int(d.Hours()))
}
