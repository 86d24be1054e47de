package iamtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// OAuthConfig returns everything that package oauth needs to use this server:
// provider, client, clock and HTTP client. prover may be nil if the server accepts
// requests without a proof. The caller sets the rest, such as Store and Logger.
//
//	client, err := oauth.New(srv.OAuthConfig(prover))
//	...
//	session, err := client.Login(ctx, oauth.LoginOptions{OpenURL: srv.OpenURL})
func (s *Server) OAuthConfig(prover *dpop.Prover) oauth.Config {
	return oauth.Config{
		Provider: s.Provider(), ClientID: s.ClientID, ClientSecret: s.ClientSecret(), DPoP: prover,
		Clock: s.Now, HTTPClient: s.HTTPClient(),
	}
}

// HTTPClient returns a client that reaches the server over the network, trusts its
// certificate and uses HTTP/2 if the server does. It is the same client for every
// call; its idle connections are closed with the server.
func (s *Server) HTTPClient() *http.Client { return s.client }

// newTransport is one that trusts the server, whatever proxy the environment
// names.
func (s *Server) newTransport() *http.Transport {
	o := s.options()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	if o.TLS {
		tr.TLSClientConfig = s.identity.client()
	}
	tr.Protocols.SetHTTP1(!o.HTTP2)
	tr.Protocols.SetHTTP2(o.HTTP2 && o.TLS)
	tr.Protocols.SetUnencryptedHTTP2(o.HTTP2 && !o.TLS)
	return tr
}

// OpenURL simulates the browser of a user who agrees to every login: it opens the
// authorization URL and follows the redirect to the client. It is for
// LoginOptions.OpenURL of package oauth.
//
// It fails if the URL is not this server's, if the server does not redirect, and if
// the client cannot be reached. It ignores the page that the client shows.
func (s *Server) OpenURL(ctx context.Context, url string) error {
	if !strings.HasPrefix(url, s.URL+"/") {
		return fmt.Errorf("iamtest: OpenURL: the address is not one of this server, which is at %s", s.URL)
	}
	status, location, err := s.visit(ctx, url, s.newTransport())
	if err != nil {
		return fmt.Errorf("iamtest: OpenURL: %w", err)
	}
	if status != http.StatusFound {
		return fmt.Errorf("iamtest: OpenURL: the server answered %d instead of a redirect to the client: see Server.Requests", status)
	}
	if _, _, err := s.visit(ctx, location, &http.Transport{}); err != nil {
		return fmt.Errorf("iamtest: OpenURL: the client's redirect URI: %w", err)
	}
	return nil
}

// visit makes one request, on a connection of its own, and reads the answer.
func (s *Server) visit(ctx context.Context, url string, tr *http.Transport) (status int, location string, err error) {
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("Location"), err
}
