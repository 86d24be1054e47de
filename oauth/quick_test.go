package oauth

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// issuer is a token endpoint that numbers its tokens.
type issuer struct{ n int }

func (i *issuer) RoundTrip(req *http.Request) (*http.Response, error) {
	i.n++
	body := fmt.Sprintf(`{"access_token":"at-%d","token_type":"Bearer","expires_in":3600}`, i.n)
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

// TestSleepOfTheComputer: the monotonic clock says that no time has passed, the
// wall clock says hours.
func TestSleepOfTheComputer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{
			Provider: Provider{Name: "test", TokenURL: "https://as.example/token"}, ClientID: "client",
			HTTPClient: &http.Client{Transport: new(issuer)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Import(t.Context(), "rt"); err != nil {
			t.Fatal(err)
		}
		token := func() string {
			t.Helper()
			tok, err := c.TokenSource().Token()
			if err != nil {
				t.Fatal(err)
			}
			return tok.AccessToken
		}
		token() // obtains it
		token() // looks at the wall clock
		st := c.source.state.Load()
		if st.quick.Load() == 0 {
			t.Fatal("the wall clock is looked at every time")
		}
		slept := int64(5 * time.Hour)
		st.stale, st.invalid, st.expires = st.stale-slept, st.invalid-slept, st.expires-slept
		st.session.Expiry = st.session.Expiry.Add(-time.Duration(slept))
		if err := c.cfg.Store.Update(t.Context(), func(Session) (Session, error) { return st.session, nil }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(quickly)
		if got := token(); got != "at-2" {
			t.Errorf("token %q: one that expired in the computer's sleep is still served after %v", got, quickly)
		}
	})
}

// TestQuickNeverOutlastsFresh: a token that is fresh for less than a moment is
// not served as fresh for a whole one.
func TestQuickNeverOutlastsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{
			Provider: Provider{Name: "test", TokenURL: "https://as.example/token"}, ClientID: "client", Synchronous: true,
			HTTPClient: &http.Client{Transport: new(issuer)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Import(t.Context(), "rt"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.source.Token(); err != nil {
			t.Fatal(err)
		}
		st := c.source.state.Load()
		time.Sleep(time.Until(time.Unix(0, st.stale)) - time.Millisecond)
		if _, err := c.source.Token(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		if tok, err := c.source.Token(); err != nil || tok.AccessToken != "at-2" {
			t.Errorf("token %v, %v: the stale one was served as fresh", tok, err)
		}
	})
}
