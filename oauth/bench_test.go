package oauth_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/oauth"
)

// BenchmarkFreshToken compares what a fresh token costs with what no token source
// can do without: an atomic load and a look at the clock.
func BenchmarkFreshToken(b *testing.B) {
	type state struct {
		token  *oauth2.Token
		expiry time.Time
	}
	var p atomic.Pointer[state]
	p.Store(&state{&oauth2.Token{AccessToken: "at"}, time.Now().Add(time.Hour)})
	b.Run("floor", func(b *testing.B) {
		for b.Loop() {
			if st := p.Load(); !time.Now().Before(st.expiry) {
				b.Fatal("expired")
			}
		}
	})

	b.Run("Token", func(b *testing.B) {
		c, err := benchClient(b)
		if err != nil {
			b.Fatal(err)
		}
		ts := c.TokenSource()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ts.Token(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchClient(b *testing.B) (*oauth.Client, error) {
	c, err := oauth.New(oauth.Config{
		Provider: testProvider(), ClientID: "client", HTTPClient: &http.Client{Transport: newFakeServer(issue)},
	})
	if err == nil {
		err = c.Import(b.Context(), "rt-0")
	}
	return c, err
}
