package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// last is the highest generation that can be read.
const last = 1 << 62

// roundTripper issues tokens, and counts how many.
type roundTripper struct{ n int }

func (r *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	r.n++
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
		Body: io.NopCloser(strings.NewReader(fmt.Sprintf(`{"access_token":"at-%d","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-%d"}`, r.n, r.n))),
	}, nil
}

// No refresh token is spent for a session that could not be stored, and a login or an
// import replaces a session that has no successor.
func TestLastGeneration(t *testing.T) {
	start := func(t *testing.T, generation uint64) (*oauth.Client, *roundTripper, *filestore.Store) {
		s := open(t)
		err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
			stored := session(generation)
			stored.Provider, stored.ClientID, stored.KeyThumbprint = "test", "client", ""
			stored.RefreshToken, stored.AccessToken, stored.TokenType = "rt-0", "", ""
			stored.TokenOrigin, stored.Expiry, stored.Obtained = "", time.Time{}, time.Time{}
			return stored, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		srv := new(roundTripper)
		c, err := oauth.New(oauth.Config{
			Provider: oauth.Provider{
				Name: "test", TokenURL: "https://auth.example/token", AuthURL: "https://auth.example/authorize", AuthMethod: oauth.AuthNone,
			},
			ClientID: "client", Store: s, HTTPClient: &http.Client{Transport: srv},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.TokenSource().Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		return c, srv, s
	}
	wantStored := func(t *testing.T, s *filestore.Store, generation uint64, refreshToken oauth.Secret) {
		t.Helper()
		if got, err := s.Load(t.Context()); err != nil || got.Generation != generation || got.RefreshToken != refreshToken {
			t.Errorf("stored: generation %d, %v; %v", got.Generation, err, got.RefreshToken == refreshToken)
		}
	}
	t.Run("the one before is renewed", func(t *testing.T) {
		c, _, s := start(t, last-1)
		if _, err := c.TokenSource().Token(); err != nil {
			t.Error(err)
		}
		wantStored(t, s, last, "rt-1")
	})
	t.Run("it is not renewed", func(t *testing.T) {
		c, srv, s := start(t, last)
		for _, token := range []func(context.Context) error{
			func(ctx context.Context) error { _, err := c.TokenSource().TokenContext(ctx); return err },
			func(ctx context.Context) error { _, err := c.TokenSource().Renew(ctx); return err },
		} {
			err := token(t.Context())
			var failed *oauth.StoreError
			if !errors.As(err, &failed) || !errors.Is(err, oauth.ErrSessionFormat) || srv.n != 0 {
				t.Errorf("%v, %d requests", err, srv.n)
			}
		}
		wantStored(t, s, last, "rt-0")
	})
	t.Run("an import replaces it", func(t *testing.T) {
		c, _, s := start(t, last)
		if err := c.Import(t.Context(), "rt-imported"); err != nil {
			t.Fatal(err)
		}
		wantStored(t, s, 1, "rt-imported")
		if _, err := c.TokenSource().Token(); err != nil {
			t.Error(err)
		}
		wantStored(t, s, 2, "rt-1")
	})
	t.Run("a login replaces it", func(t *testing.T) {
		c, _, s := start(t, last)
		_, err := c.Login(t.Context(), oauth.LoginOptions{Out: io.Discard, OpenURL: func(ctx context.Context, raw string) error {
			u, err := url.Parse(raw)
			if err != nil {
				return err
			}
			callback := u.Query().Get("redirect_uri") + "?" + url.Values{"state": {u.Query().Get("state")}, "code": {"the-code"}}.Encode()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, callback, http.NoBody)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			return resp.Body.Close()
		}})
		if err != nil {
			t.Fatal(err)
		}
		wantStored(t, s, 1, "rt-1")
	})
	for _, above := range []uint64{last + 1, math.MaxInt64, math.MaxUint64} {
		t.Run(fmt.Sprint(above, " is not stored"), func(t *testing.T) {
			_, _, s := start(t, last)
			err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
				current.Generation = above
				return current, nil
			})
			var failed *filestore.Error
			if !errors.As(err, &failed) || !errors.Is(err, oauth.ErrSessionFormat) {
				t.Errorf("Update: %v", err)
			}
			wantStored(t, s, last, "rt-0")
		})
	}
}
