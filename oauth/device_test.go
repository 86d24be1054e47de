package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

const (
	deviceURL      = "https://as.example/device"
	deviceResponse = `{"device_code":"hunter2-device","user_code":"WDJB-MJHT","verification_uri":"https://as.example/go",` +
		`"verification_uri_complete":"https://as.example/go?code=WDJB-MJHT","expires_in":900,"interval":7}`
)

// devices is a server with a device authorization endpoint. poll responds to the nth token
// request; polled are the times of them, since the first response.
type devices struct {
	*fakeServer
	response string

	mu     sync.Mutex
	begun  time.Time
	polled []time.Duration
}

func newDevices(poll func(n int, r fakeRequest) (*http.Response, error)) *devices {
	d := &devices{response: deviceResponse}
	d.fakeServer = newFakeServer(func(_ int, r fakeRequest) (*http.Response, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if r.url == deviceURL {
			d.begun = time.Now()
			return answer(200, d.response), nil
		}
		d.polled = append(d.polled, time.Since(d.begun))
		return poll(len(d.polled), r)
	})
	return d
}

func (d *devices) times() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprint(d.polled)
}

func withDevice(cfg *oauth.Config) { cfg.Provider.DeviceAuthURL = deviceURL }

// errRefused is what a dialer says if nobody listens.
var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}

func pending(int, fakeRequest) (*http.Response, error) {
	return answer(400, `{"error":"authorization_pending"}`), nil
}

func TestDeviceLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevices(func(n int, r fakeRequest) (*http.Response, error) {
			switch n {
			case 1:
				return pending(n, r)
			case 2:
				return answer(400, `{"error":"slow_down"}`), nil
			case 3:
				return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", "n"), nil
			case 4:
				return pending(n, r)
			}
			return rotate(n, r)
		})
		c, log := newClient(t, d.fakeServer, withDevice, func(cfg *oauth.Config) {
			cfg.DPoP, cfg.Scopes, cfg.Resources = newProver(t), []string{"openid"}, []string{"https://api.example"}
		})
		var out safeBuffer
		s, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: &out})
		if err != nil || s.RefreshToken != "rt-5" || s.KeyThumbprint == "" {
			t.Fatalf("%+v, %v", s, err)
		}
		if want := "[7s 14s 26s 26s 38s]"; d.times() != want {
			t.Errorf("polled after %s, want %s", d.times(), want)
		}
		first := d.request(0)
		if first.form.Get("client_id") != "client" || first.form.Get("scope") != "openid" || first.form.Get("resource") != "https://api.example" ||
			first.form.Has("response_type") || first.form.Has("redirect_uri") || first.form.Has("code_challenge") {
			t.Errorf("device authorization request %v", first.form)
		}
		seen := make(map[string]bool)
		for i := 1; i < d.count(); i++ {
			r := d.request(i)
			if r.form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:device_code" || r.form.Get("device_code") != "hunter2-device" ||
				r.form.Get("client_id") != "client" || r.form.Get("resource") != "https://api.example" {
				t.Errorf("token request %v", r.form)
			}
			if id := claimsOf(t, r).ID; seen[id] {
				t.Error("a proof was sent twice")
			} else {
				seen[id] = true
			}
		}
		for _, want := range []string{"the code WDJB-MJHT:\n\nhttps://as.example/go\n", "\nhttps://as.example/go?code=WDJB-MJHT\n"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the user was told\n%s", out.String())
			}
		}
		if strings.Contains(out.String(), "hunter2") || !slices.Equal(log.kinds(), []oauth.EventKind{oauth.EventLogin, oauth.EventLogin}) {
			t.Errorf("events %v", log.kinds())
		}
		wantStored(t, c, "rt-5")
		wantToken(t, c.TokenSource(), "at-5")
		closeSource(t, c)
	})
}

func TestDeviceCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := openClient(t, newDevices(rotate).fakeServer, withDevice)
		start := time.Now()
		var got oauth.DeviceCode
		_, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, ShowCode: func(_ context.Context, code oauth.DeviceCode) error {
			got = code
			return nil
		}})
		want := oauth.DeviceCode{
			UserCode: "WDJB-MJHT", VerificationURI: "https://as.example/go", VerificationURIComplete: "https://as.example/go?code=WDJB-MJHT",
			Expiry: start.Add(15 * time.Minute),
		}
		if err != nil || !got.Expiry.Equal(want.Expiry) {
			t.Errorf("%v, expiry %v", err, got.Expiry)
		}
		if got.Expiry = want.Expiry; got != want {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("empty members", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, value := range []string{`""`, `null`} {
				d := newDevices(rotate)
				d.response = `{"device_code":"d","user_code":"U","verification_uri":"https://as.example/go","verification_uri_complete":` + value + `}`
				c, _ := openClient(t, d.fakeServer, withDevice)
				var out safeBuffer
				if _, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: &out}); err != nil || strings.Contains(out.String(), "compare the code") {
					t.Errorf("%s: %v, %s", value, err, out.String())
				}
				closeSource(t, c)
			}
		})
	})
	t.Run("little", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDevices(rotate)
			d.response = `{"device_code":"d","user_code":"U","verification_url":"https://as.example/go"}` // as Google's
			c, _ := openClient(t, d.fakeServer, withDevice)
			var got oauth.DeviceCode
			_, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, ShowCode: func(_ context.Context, code oauth.DeviceCode) error {
				got = code
				return nil
			}})
			if want := (oauth.DeviceCode{UserCode: "U", VerificationURI: "https://as.example/go"}); err != nil || got != want || d.times() != "[5s]" {
				t.Errorf("%+v, %v, polled after %s", got, err, d.times())
			}
		})
	})
}

func TestDeviceLoginFails(t *testing.T) {
	isAuthorization := func(code string) func(error) bool {
		return func(err error) bool {
			var refused *oauth.AuthorizationError
			return errors.As(err, &refused) && refused.Code == code
		}
	}
	for name, tt := range map[string]struct {
		poll   func(n int, r fakeRequest) (*http.Response, error)
		want   func(error) bool
		polled string
	}{
		"access denied": {refuse("access_denied"), isAuthorization("access_denied"), "[7s]"},
		"expired":       {refuse("expired_token"), isAuthorization("expired_token"), "[7s]"},
		"another error": {refuse("invalid_grant"), isServerError("invalid_grant"), "[7s]"},
		"malformed":     {func(int, fakeRequest) (*http.Response, error) { return answer(200, "{}"), nil }, isMalformed, "[7s]"},
		"lost tokens": {func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return lose(n, r)
			}
			return refuse("invalid_grant")(n, r)
		}, func(err error) bool {
			return errors.Is(err, oauth.ErrOutcomeUnknown) && isServerError("invalid_grant")(err)
		}, "[7s 21s]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDevices(tt.poll)
				c, _ := newClient(t, d.fakeServer, withDevice)
				var out safeBuffer
				_, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: &out})
				if !tt.want(err) || d.times() != tt.polled {
					t.Errorf("%v, polled after %s", err, d.times())
				}
				wantStored(t, c, "rt-0")
			})
		})
	}
	t.Run("nobody logs in", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			d := newDevices(pending)
			d.response = strings.Replace(deviceResponse, "900", "60", 1)
			c, _ := newClient(t, d.fakeServer, withDevice)
			_, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: new(safeBuffer)})
			if !isAuthorization("expired_token")(err) || time.Since(start) != time.Minute || d.count() != 1+60/7 {
				t.Errorf("%v after %v and %d requests", err, time.Since(start), d.count())
			}
		})
	})
	t.Run("a network that is down for a while", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDevices(func(n int, r fakeRequest) (*http.Response, error) {
				switch {
				case n == 1:
					return nil, errRefused
				case n == 2:
					return answer(503, "", "Retry-After", "60"), nil
				case n < 5:
					return lose(n, r)
				}
				return rotate(n, r)
			})
			c, _ := openClient(t, d.fakeServer, withDevice)
			s, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: new(safeBuffer)})
			if want := "[7s 21s 1m21s 2m17s 3m17s]"; err != nil || s.RefreshToken != "rt-5" || d.times() != want {
				t.Errorf("%v, polled after %s, want %s", err, d.times(), want)
			}
		})
	})
	t.Run("the caller gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			c, _ := openClient(t, newDevices(pending).fakeServer, withDevice)
			start := time.Now()
			if _, err := c.Login(ctx, oauth.LoginOptions{Device: true, Out: new(safeBuffer)}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 20*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("the client is closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := openClient(t, newDevices(pending).fakeServer, withDevice)
			time.AfterFunc(20*time.Second, func() { closeSource(t, c) })
			if _, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: new(safeBuffer)}); !errors.Is(err, oauth.ErrClosed) {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("the code cannot be shown", func(t *testing.T) {
		d := newDevices(pending)
		c, _ := openClient(t, d.fakeServer, withDevice)
		_, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, ShowCode: func(context.Context, oauth.DeviceCode) error { return errDisk }})
		if !errors.Is(err, errDisk) || d.count() != 1 {
			t.Errorf("%v after %d requests", err, d.count())
		}
	})
	t.Run("a store that is broken is noticed before the user is asked", func(t *testing.T) {
		store := newFaultyStore()
		d := newDevices(pending)
		c, _ := openClient(t, d.fakeServer, withDevice, func(cfg *oauth.Config) { cfg.Store = store })
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		if _, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: new(safeBuffer)}); !errors.Is(err, errDisk) || d.count() != 0 {
			t.Errorf("%v after %d requests", err, d.count())
		}
	})
	t.Run("impossible options", func(t *testing.T) {
		c, _ := openClient(t, newDevices(pending).fakeServer, withDevice)
		for _, opts := range []oauth.LoginOptions{{Device: true}, {Device: true, Headless: true, In: strings.NewReader(""), Out: new(safeBuffer)}} {
			if _, err := c.Login(t.Context(), opts); err == nil {
				t.Errorf("%+v was accepted", opts)
			}
		}
		var ce *oauth.ConfigError
		c, _ = openClient(t, newDevices(pending).fakeServer)
		if _, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: new(safeBuffer)}); !errors.As(err, &ce) || ce.Field != "Provider.DeviceAuthURL" {
			t.Errorf("error %v", err)
		}
	})
}

// However long the server asks to wait, the tokens are requested while the code is valid.
func TestDeviceWaits(t *testing.T) {
	const year = "31536000"
	slow := func(n int, r fakeRequest) (*http.Response, error) {
		if n == 1 {
			return refuse("slow_down")(n, r)
		}
		return rotate(n, r)
	}
	later := func(body string) func(int, fakeRequest) (*http.Response, error) {
		return func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return answer(429, body, "Retry-After", year), nil
			}
			return rotate(n, r)
		}
	}
	after := func(polls int) func(int, fakeRequest) (*http.Response, error) {
		return func(n int, r fakeRequest) (*http.Response, error) {
			if n <= polls {
				return pending(n, r)
			}
			return rotate(n, r)
		}
	}
	for name, tt := range map[string]struct {
		members string
		poll    func(int, fakeRequest) (*http.Response, error)
		polled  string
	}{
		"an interval longer than the life":    {`"expires_in":900,"interval":5000`, rotate, "[1m0s]"},
		"an interval as long as the life":     {`"expires_in":5,"interval":5`, rotate, "[4s]"},
		"an interval without an end":          {`"interval":1e300`, rotate, "[1m0s]"},
		"more than the longest interval":      {`"expires_in":900,"interval":5000`, slow, "[1m0s 2m5s]"},
		"a user who logs in late":             {`"expires_in":60,"interval":10`, after(5), "[10s 20s 30s 40s 50s 55s]"},
		"a long Retry-After":                  {`"expires_in":900`, later(`{"error":"authorization_pending"}`), "[5s 10m5s]"},
		"a long Retry-After of a slow_down":   {`"expires_in":900`, later(`{"error":"slow_down"}`), "[5s 10m5s]"},
		"a long Retry-After of a busy server": {`"expires_in":900`, later(`busy`), "[5s 10m5s]"},
		"a long Retry-After without a life":   {`"interval":5`, later(`{"error":"slow_down"}`), "[5s 10m5s]"},
		"a Retry-After longer than the life":  {`"expires_in":300`, later(`{"error":"authorization_pending"}`), "[5s 4m55s]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDevices(tt.poll)
				d.response = `{"device_code":"d","user_code":"U","verification_uri":"https://as.example/go",` + tt.members + `}`
				c, _ := openClient(t, d.fakeServer, withDevice)
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				_, err := c.Login(ctx, oauth.LoginOptions{Device: true, Out: new(safeBuffer)})
				if err != nil || d.times() != tt.polled {
					t.Errorf("%v, polled after %s, want %s", err, d.times(), tt.polled)
				}
				closeSource(t, c)
			})
		})
	}
}

// An error with status 200 keeps its code.
func TestDeviceErrorWithStatus200(t *testing.T) {
	d := newDevices(pending)
	d.response = `{"error":"invalid_scope","error_description":"hunter2-secret"}`
	c, _ := openClient(t, d.fakeServer, withDevice, func(cfg *oauth.Config) {
		cfg.ClientSecret, cfg.Provider.AuthMethod = "hunter2-secret", oauth.AuthClientSecretPost
	})
	_, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: new(safeBuffer)})
	var server *oauth.ServerError
	if !errors.As(err, &server) || server.Code != "invalid_scope" || server.Status != 200 || d.count() != 1 || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v after %d requests", err, d.count())
	}
}

func TestDeviceResponses(t *testing.T) {
	for name, tt := range map[string]struct{ response, want string }{
		"not JSON":             {"<html>", "malformed JSON"},
		"no device code":       {`{"user_code":"U","verification_uri":"https://as.example"}`, "device_code is missing"},
		"no user code":         {`{"device_code":"d","verification_uri":"https://as.example"}`, "user_code is missing"},
		"no address":           {`{"device_code":"d","user_code":"U"}`, "verification_uri is missing"},
		"a number":             {`{"device_code":"d","user_code":5,"verification_uri":"https://as.example"}`, "user_code is not a string"},
		"a terminal's escape":  {`{"device_code":"d","user_code":"U\u001b[2J","verification_uri":"https://as.example"}`, "user_code has characters"},
		"another direction":    {`{"device_code":"d","user_code":"U\u202e","verification_uri":"https://as.example"}`, "user_code has characters"},
		"a long user code":     {`{"device_code":"d","user_code":"` + strings.Repeat("U", 65) + `","verification_uri":"https://as.example"}`, "longer"},
		"a program":            {`{"device_code":"d","user_code":"U","verification_uri":"javascript:alert(1)"}`, "verification_uri"},
		"http":                 {`{"device_code":"d","user_code":"U","verification_uri":"http://as.example"}`, "uses http"},
		"two addresses":        {`{"device_code":"d","user_code":"U","verification_uri":"https://as.example https://evil.example"}`, "verification_uri has characters"},
		"another complete one": {`{"device_code":"d","user_code":"U","verification_uri":"https://as.example","verification_uri_complete":"file:///etc"}`, "verification_uri"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevices(pending)
			d.response = tt.response
			c, _ := openClient(t, d.fakeServer, withDevice)
			_, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, ShowCode: func(context.Context, oauth.DeviceCode) error {
				t.Error("it was shown")
				return nil
			}})
			if !isMalformed(err) || !strings.Contains(err.Error(), tt.want) || d.count() != 1 {
				t.Errorf("%v after %d requests, want %s", err, d.count(), tt.want)
			}
		})
	}
}
