package oauth_test

import (
	"crypto"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*oauth.Config)
		field  string
		want   string
	}{
		{"no name", func(c *oauth.Config) { c.Provider.Name = "" }, "Provider.Name", "is empty"},
		{"no token URL", func(c *oauth.Config) { c.Provider.TokenURL = "" }, "Provider.TokenURL", "is empty"},
		{"http", func(c *oauth.Config) { c.Provider.TokenURL = "http://as.example/token" }, "Provider.TokenURL", "only https"},
		{"http to a private address", func(c *oauth.Config) { c.Provider.TokenURL = "http://10.0.0.1/token" }, "Provider.TokenURL", "only https"},
		{"relative", func(c *oauth.Config) { c.Provider.TokenURL = "/token" }, "Provider.TokenURL", "not an absolute URL"},
		{"user information", func(c *oauth.Config) { c.Provider.TokenURL = "https://u:hunter2@as.example/" }, "Provider.TokenURL", "user information"},
		{"fragment", func(c *oauth.Config) { c.Provider.TokenURL = "https://as.example/#x" }, "Provider.TokenURL", "fragment"},
		{"other scheme", func(c *oauth.Config) { c.Provider.TokenURL = "ftp://as.example/" }, "Provider.TokenURL", "neither https"},
		{"auth URL", func(c *oauth.Config) { c.Provider.AuthURL = "http://as.example/" }, "Provider.AuthURL", "only https"},
		{"PAR nowhere", func(c *oauth.Config) { c.Provider.RequirePAR = true }, "Provider.PushedAuthURL", "is empty"},
		{"PAR URL", func(c *oauth.Config) { c.Provider.PushedAuthURL = "http://as.example/" }, "Provider.PushedAuthURL", "only https"},
		{"iss is required of an unknown issuer", func(c *oauth.Config) { c.Provider.RequireIss = true }, "Provider.Issuer", "is empty"},
		{"callback path", func(c *oauth.Config) { c.Provider.CallbackPath = "auth/callback" }, "Provider.CallbackPath", "absolute path"},
		{"no client", func(c *oauth.Config) { c.ClientID = "" }, "ClientID", "is empty"},
		{"secret of a public client", func(c *oauth.Config) { c.ClientSecret = "hunter2" }, "ClientSecret", "AuthMethod is none"},
		{"no secret", func(c *oauth.Config) { c.Provider.AuthMethod = oauth.AuthClientSecretBasic }, "ClientSecret", "is empty"},
		{"unknown method", func(c *oauth.Config) { c.Provider.AuthMethod = "tls_client_auth" }, "Provider.AuthMethod", "tls_client_auth"},
		{"no client key", func(c *oauth.Config) { c.Provider.AuthMethod = oauth.AuthPrivateKeyJWT }, "ClientKey", "is not set"},
		{"client key that is not from NewClientKey", func(c *oauth.Config) {
			c.Provider.AuthMethod, c.ClientKey = oauth.AuthPrivateKeyJWT, new(oauth.ClientKey)
		}, "ClientKey", "is not set"},
		{"client key of no use", func(c *oauth.Config) { c.ClientKey = newClientKey(t, newKey(t)) }, "ClientKey", "AuthMethod is none"},
		{"client key and secret", func(c *oauth.Config) {
			c.Provider.AuthMethod, c.ClientKey, c.ClientSecret = oauth.AuthPrivateKeyJWT, newClientKey(t, newKey(t)), "hunter2"
		}, "ClientSecret", "does not send it"},
		{"client key of another algorithm", func(c *oauth.Config) {
			c.Provider.AuthMethod, c.ClientKey, c.Provider.AuthSigningAlgs = oauth.AuthPrivateKeyJWT, newClientKey(t, newKey(t)), []string{"RS256", "HS256"}
		}, "ClientKey", "signs with ES256"},
		{"colon", func(c *oauth.Config) {
			c.ClientID, c.ClientSecret, c.Provider.AuthMethod = "a:b", "hunter2", oauth.AuthClientSecretBasicPlain
		}, "ClientID", "colon"},
		{"control character", func(c *oauth.Config) {
			c.ClientSecret, c.Provider.AuthMethod = "hunter2\n", oauth.AuthClientSecretBasicPlain
		}, "ClientSecret", "control characters"},
		{"scopes in one string", func(c *oauth.Config) { c.Scopes = []string{"openid offline_access"} }, "Scopes", "separate element"},
		{"relative resource", func(c *oauth.Config) { c.Resources = []string{"https://api.example", "/v1"} }, "Resources", "absolute"},
		{"resource with a fragment", func(c *oauth.Config) { c.Resources = []string{"https://api.example#v1"} }, "Resources", "fragment"},
		{"empty resource", func(c *oauth.Config) { c.Resources = []string{""} }, "Resources", "absolute"},
		{"hash", func(c *oauth.Config) { c.DPoP = newProver(t); c.Provider.ThumbprintHash = crypto.MD4 }, "Provider.ThumbprintHash", "not available"},
		{"user agent", func(c *oauth.Config) { c.UserAgent = "a\r\nb" }, "UserAgent", "header"},
		{"negative margin", func(c *oauth.Config) { c.StaleBefore = -1 }, "StaleBefore", "negative"},
		{"negative attempts", func(c *oauth.Config) { c.MaxAttempts = -1 }, "MaxAttempts", "negative"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := oauth.Config{Provider: testProvider(), ClientID: "client"}
			tt.change(&cfg)
			_, err := oauth.New(cfg)
			ce := new(oauth.ConfigError)
			if !errors.As(err, &ce) || ce.Field != tt.field || !strings.Contains(ce.Reason, tt.want) {
				t.Errorf("error %v, want Config.%s … %s", err, tt.field, tt.want)
			}
			// The reason is a predicate of the field's name.
			if verb, _, _ := strings.Cut(ce.Reason, " "); !slices.Contains([]string{"is", "has", "uses", "does", "signs", "or", "cannot"}, verb) {
				t.Errorf("the error does not read well: %v", err)
			}
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("the secret is in %v", err)
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		_, err := oauth.New(oauth.Config{})
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok || len(joined.Unwrap()) != 3 {
			t.Errorf("error %v, want three joined", err)
		}
	})
	for _, good := range []string{"https://as.example/token", "http://127.0.0.1:8080/token", "http://[::1]/token", "http://localhost/t", "HTTPS://AS.example/t?tenant=1"} {
		if _, err := oauth.New(oauth.Config{Provider: oauth.Provider{Name: "x", TokenURL: good}, ClientID: "c"}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestCharactersOfAUserAgent(t *testing.T) {
	for agent, good := range map[string]bool{"a b~": true, "\x1f": false, "\x7f": false} {
		if _, err := oauth.New(oauth.Config{Provider: testProvider(), ClientID: "client", UserAgent: agent}); (err == nil) != good {
			t.Errorf("%q: %v", agent, err)
		}
	}
}

func TestClientForResourcesNeedsNoHTTPClient(t *testing.T) {
	c, err := oauth.New(oauth.Config{Provider: testProvider(), ClientID: "client"})
	if err != nil || c.HTTPClient().Transport == nil {
		t.Error(err)
	}
}

func TestConfigIsCopied(t *testing.T) {
	cfg := oauth.Config{Provider: testProvider(), ClientID: "client", Scopes: []string{"openid"}}
	cfg.Provider.AuthParams = url.Values{"prompt": {"consent"}}
	c, err := oauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Scopes[0] = "changed"
	cfg.Provider.AuthParams.Set("prompt", "none")
	got := loginURL(t, c, oauth.LoginOptions{})
	if got.Get("scope") != "openid" || got.Get("prompt") != "consent" {
		t.Errorf("the caller's later change came through: %v", got)
	}
}

func TestProviders(t *testing.T) {
	yc := oauth.YandexCloud()
	if yc.TokenURL != "https://auth.yandex.cloud/oauth/token" || yc.AuthURL != "https://auth.yandex.cloud/oauth/authorize" ||
		yc.ThumbprintHash != crypto.SHA512 || yc.AuthMethod != oauth.AuthNone {
		t.Errorf("Yandex Cloud: %+v", yc)
	}
	yc.Scopes[0] = "changed"
	if oauth.YandexCloud().Scopes[0] != "openid" {
		t.Error("one caller's change reaches the next")
	}
	if life := oauth.YandexCloud().RefreshTokenLife; life != 744*time.Hour {
		t.Errorf("refresh tokens of Yandex Cloud live %v", life)
	}
	if id := oauth.YandexID(); id.TokenURL != "https://oauth.yandex.com/token" || id.ThumbprintHash != 0 {
		t.Errorf("Yandex ID: %+v", id)
	}
	for _, p := range []oauth.Provider{oauth.YandexCloud(), oauth.YandexID()} {
		cfg := oauth.Config{Provider: p, ClientID: "client", DPoP: newProver(t)}
		if p.AuthMethod != oauth.AuthNone {
			cfg.ClientSecret = "s"
		}
		if _, err := oauth.New(cfg); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	const secret = "rt1.hunter2"
	type holder struct {
		Name   string
		Secret oauth.Secret
		List   []oauth.Secret
		Map    map[string]oauth.Secret
		Ptr    *oauth.Secret
	}
	s := oauth.Secret(secret)
	h := holder{"x", s, []oauth.Secret{s}, map[string]oauth.Secret{"k": s}, &s}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%10s", "%T", "%t", "%c", "%U"} {
		fmt.Fprintf(&out, verb+"|", s)
		fmt.Fprintf(&out, verb+"|", h)
		fmt.Fprintf(&out, verb+"|", &h)
	}
	fmt.Fprintln(&out, s, h, oauth.Session{RefreshToken: s, AccessToken: s}, fmt.Errorf("wrapped %v", s))
	fmt.Fprintf(&out, "%+v", oauth.Config{ClientSecret: s})
	out.WriteString(s.String() + s.GoString() + s.LogValue().String())
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	if b, err = xml.Marshal(s); err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "h", h, "session", oauth.Session{RefreshToken: s})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "h", h)
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("% x", secret), "hunter2"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q came through in:\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), "REDACTED") || s.Reveal() != secret {
		t.Error("nothing marks the place, or Reveal does not reveal")
	}
	if got := fmt.Sprintf("%s%v%q", oauth.Secret(""), oauth.Secret(""), oauth.Secret("")); got != `""` {
		t.Errorf("an empty secret prints as %q", got)
	}
	if got := fmt.Sprintf("%s %#s %v %+v %#v %q", s, s, s, s, s, s); got != `REDACTED REDACTED REDACTED REDACTED "REDACTED" "REDACTED"` {
		t.Errorf("a secret prints as %s", got)
	}
}

func fullSession() oauth.Session {
	at := time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)
	return oauth.Session{
		Provider: "yandex-cloud", ClientID: oauth.YandexCloudClientID, RefreshToken: "rt1.a", AccessToken: "t1.b",
		TokenType: "Bearer", Expiry: at.Add(12 * time.Hour), Obtained: at, Created: at.Add(-time.Hour),
		Scopes: []string{"openid", "offline_access"}, KeyThumbprint: "abc", Generation: 7, Warning: oauth.WarnNoOfflineScope,
	}
}

func TestSessionRoundTrip(t *testing.T) {
	for name, want := range map[string]oauth.Session{
		"full":     fullSession(),
		"imported": {Provider: "p", ClientID: "c", RefreshToken: "r", Generation: 1},
		"access":   {Provider: "p", ClientID: "c", AccessToken: "a", Generation: 1},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := want.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := oauth.DecodeSession(data)
			if err != nil || fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) || got.RefreshToken != want.RefreshToken || got.AccessToken != want.AccessToken {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
	data, err := fullSession().Encode()
	if err != nil {
		t.Fatal(err)
	}
	const golden = `{"version":1,"provider":"yandex-cloud","client_id":"yc.oauth.public-sdk","refresh_token":"rt1.a","access_token":"t1.b",` +
		`"token_type":"Bearer","expiry":"2026-11-21T00:00:00.123456789Z","obtained":"2026-11-20T12:00:00.123456789Z",` +
		`"scopes":["openid","offline_access"],"key_thumbprint":"abc","created":"2026-11-20T11:00:00.123456789Z","generation":7,"warning":"no_offline_scope"}`
	if string(data) != golden {
		t.Errorf("the stored form has changed, and sessions out there have not:\n%s\n%s", data, golden)
	}
}

func TestDecodeSessionErrors(t *testing.T) {
	for name, data := range map[string]string{
		"empty":             "",
		"truncated":         `{"version":1,"provider":"p"`,
		"not JSON":          "rt1.hunter2",
		"array":             `[]`,
		"other version":     `{"version":2,"provider":"p","client_id":"c","refresh_token":"rt1.hunter2","generation":1}`,
		"no version":        `{"provider":"p","client_id":"c","refresh_token":"rt1.hunter2","generation":1}`,
		"wrong type":        `{"version":1,"provider":"p","client_id":"c","refresh_token":"rt1.hunter2","generation":"rt1.hunter2"}`,
		"wrong time":        `{"version":1,"provider":"p","client_id":"c","refresh_token":"rt1.hunter2","generation":1,"expiry":"rt1.hunter2"}`,
		"time out of range": `{"version":1,"provider":"p","client_id":"c","refresh_token":"rt1.hunter2","generation":1,"expiry":"0000-01-01T00:00:00+23:59"}`,
		"no tokens":         `{"version":1,"provider":"p","client_id":"c","generation":1}`,
		"no provider":       `{"version":1,"client_id":"c","refresh_token":"rt1.hunter2","generation":1}`,
		"no generation":     `{"version":1,"provider":"p","client_id":"c","refresh_token":"rt1.hunter2"}`,
		"last generation":   `{"version":1,"provider":"p","client_id":"c","refresh_token":"rt1.hunter2","generation":18446744073709551615}`,
		"late generation":   `{"version":1,"provider":"p","client_id":"c","refresh_token":"rt1.hunter2","generation":4611686018427387905}`,
		"duplicate names":   `{"version":1,"provider":"p","client_id":"c","refresh_token":"a","refresh_token":"rt1.hunter2","generation":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			s, err := oauth.DecodeSession([]byte(data))
			if !errors.Is(err, oauth.ErrSessionFormat) || !s.IsZero() {
				t.Errorf("%+v, %v", s, err)
			}
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("the secret is in %v", err)
			}
			if strings.HasSuffix(name, "generation") && name != "no generation" && !strings.Contains(fmt.Sprint(err), "set it to 1, or log in again") {
				t.Errorf("no remedy in %v", err)
			}
		})
	}
	for name, member := range map[string]string{
		"an unknown member": `"added_later":{}`, "the first year": `"expiry":"0000-01-01T00:00:00Z"`, "the last year": `"expiry":"9999-12-31T23:59:59Z"`,
	} {
		if _, err := oauth.DecodeSession([]byte(`{"version":1,"provider":"p","client_id":"c","refresh_token":"r","generation":1,` + member + `}`)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEventLog(t *testing.T) {
	var out strings.Builder
	observe := oauth.LogEvents(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	observe(oauth.Event{Kind: oauth.EventRenewed, Cause: oauth.CauseStale, Duration: time.Second, Generation: 3, Rotated: true, Expiry: at})
	observe(oauth.Event{Kind: oauth.EventRetry, Attempt: 2, Wait: time.Second, Err: errors.New("busy")})
	observe(oauth.Event{Kind: oauth.EventRenewFailed, Err: &oauth.LoginRequiredError{Reason: oauth.ReasonNoSession}})
	for _, want := range []string{
		`level=DEBUG msg="oauth: renewed" cause=stale duration=1s generation=3 rotated=true expiry=2026-11-20T12:00:00.000Z`,
		`level=DEBUG msg="oauth: retry" attempt=2 wait=1s error_kind=other error=busy`,
		`level=WARN msg="oauth: renew_failed" error_kind=login_required error="oauth: log in: there is no session"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
	out.Reset()
	c, log := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) {
		cfg.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg.Observer = nil
	})
	wantToken(t, c.TokenSource(), "at-1")
	if len(log.events) != 0 || !strings.Contains(out.String(), "oauth: login") || !strings.Contains(out.String(), "oauth: renewed") {
		t.Errorf("a Logger without an Observer has\n%s", out.String())
	}
	out.Reset()
	oauth.LogEvents(slog.New(slog.NewTextHandler(&out, nil)))(oauth.Event{Kind: oauth.EventAdopted})
	if out.Len() != 0 {
		t.Errorf("a debug event at level info: %s", out.String())
	}
}
