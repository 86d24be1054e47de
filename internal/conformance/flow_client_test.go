package conformance

import (
	"errors"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
)

// A mistake in a client's configuration is no reason to send its user to log in.
func TestFlowClientAuthentication(t *testing.T) {
	t.Parallel()
	f := newFlow(t)

	const wrongSecretAnswer = "token 401 invalid_client: invalid secret provided"
	wrongSecret := func(c *oauth.Config) { c.ClientSecret += "x" }
	for _, client := range []registration{f.Clients.Basic, f.Clients.Post} {
		t.Run(client.String()+", a wrong secret at login", func(t *testing.T) {
			a := f.newApp(t, client, key256(t), wrongSecret)
			f.receives(t, func() {
				_, err := a.tryLogin(t)
				wantRefusal(t, err, "invalid_client")
			}, wrongSecretAnswer)
			if _, err := a.Session(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
				t.Errorf("session of a login that failed: %v", err)
			}
		})
		t.Run(client.String()+", a wrong secret at renewal", func(t *testing.T) {
			f.refusedRenewal(t, client, "invalid_client", wrongSecretAnswer, wrongSecret)
		})
	}

	// Why AuthClientSecretBasic encodes as RFC 6749 §2.3.1 says. The server
	// decodes, and then has another secret or none.
	basicPlain := func(c *oauth.Config) { c.Provider.AuthMethod = oauth.AuthClientSecretBasicPlain }
	t.Run("plain Basic with a secret that cannot be decoded", func(t *testing.T) {
		server := f.refusedRenewal(t, f.Clients.Basic, "invalid_request", "token 400 invalid_request: URI malformed", basicPlain)
		if !strings.Contains(server.Error(), "not properly encoded") {
			t.Errorf("error %v", server)
		}
	})
	t.Run("plain Basic with a secret that decodes to another one", func(t *testing.T) {
		f.refusedRenewal(t, f.Clients.Post, "invalid_client", wrongSecretAnswer, basicPlain)
	})

	f.audit(t)
}

// refusedRenewal lets a program with a mistaken configuration meet a session
// that has to be renewed. It gets an error with a code, and the session stays
// good for a program without the mistake.
func (f *flow) refusedRenewal(t *testing.T, client registration, code, answer string, mistake func(*oauth.Config)) *oauth.ServerError {
	t.Helper()
	signer, store := key256(t), oauth.NewMemoryStore()
	shared := func(c *oauth.Config) { c.Store = store }
	right := f.newApp(t, client, signer, shared)
	wrong := f.newApp(t, client, signer, shared, mistake)
	session := right.login(t)
	f.advance(t, tokenLife)
	var refusal *oauth.ServerError
	f.receives(t, func() { refusal = wantRefusal(t, wrong.noToken(t), code) }, answer)
	if refusal.Temporary() {
		t.Errorf("waiting does not help against %v", refusal)
	}
	wrong.keeps(t, session)
	f.receives(t, func() { right.token(t) }, "token 200")
	return refusal
}
