package oauth

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// discoveryTimeout bounds each request for metadata.
const discoveryTimeout = 30 * time.Second

// Discover returns the description of an authorization server that publishes its
// metadata (RFC 8414, OpenID Connect Discovery 1.0). issuer is its issuer identifier, an
// https URL (or http to a loopback address) without query and fragment. hc is optional;
// the default is [http.DefaultClient]. Redirects are not followed.
//
// The result has Name, Issuer, RequireIss, RequirePAR, AuthSigningAlgs and the endpoints of
// the metadata. Scopes are openid and offline_access, as far as the server lists them.
// ThumbprintHash is SHA-256 if the server lists algorithms for DPoP. Everything else
// depends on the client's registration: set AuthMethod if the client is confidential, and
// AuthParams if the server issues refresh tokens only with prompt=consent (OpenID Connect
// Core 1.0 §11).
//
// Discover sends one to three requests, of 30 seconds each at most, and remembers
// nothing. Metadata rarely change: call it once, and use the result for all clients.
//
// The error is a [*ConfigError] if issuer is not such a URL, matches [ErrIssuerMismatch]
// if the metadata at one location name another issuer and those at no other name this one,
// is a [*ServerError] if the server has no metadata,
// or malformed ones, an [*UnreachableError] if no request could be sent, ctx's error, or one
// that wraps what broke the response off. Endpoints must have URLs of
// the same kind as issuer: only that of a loopback address may have endpoints with http, or on
// loopback addresses.
func Discover(ctx context.Context, issuer string, hc *http.Client) (Provider, error) {
	u, err := checkServerURL(issuer)
	if err == nil && (u.RawQuery != "" || u.ForceQuery) {
		err = errors.New("has a query")
	}
	if err != nil {
		return Provider{}, &ConfigError{"Provider.Issuer", err.Error()}
	}
	var first error // the first, or one that says more
	for _, location := range metadataLocations(u) {
		p, err := discover(ctx, location, u, issuer, wire.NoRedirects(hc))
		if err == nil {
			return p, nil
		}
		var server *ServerError
		mismatch := errors.Is(err, ErrIssuerMismatch)
		if !mismatch && !errors.As(err, &server) {
			return Provider{}, fmt.Errorf("oauth: metadata of %s: %w", issuer, err)
		}
		var before *ServerError
		if first == nil || mismatch || errors.As(first, &before) && before.Status == http.StatusNotFound {
			first = err // metadata of another issuer say more than any error, and 404 says less
		}
	}
	return Provider{}, fmt.Errorf("oauth: metadata of %s: %w", issuer, first)
}

// metadataLocations are the URLs at which the metadata may be: "by inserting a well-known
// URI string into the authorization server's issuer identifier between the host component
// and the path component" (RFC 8414 §3.1), with the suffix of RFC 8414 or that of OpenID
// Connect (§5), and "by concatenating the string /.well-known/openid-configuration to the
// Issuer" (OpenID Connect Discovery 1.0 §4).
func metadataLocations(issuer *url.URL) []string {
	origin := issuer.Scheme + "://" + issuer.Host
	path := strings.TrimSuffix(issuer.EscapedPath(), "/")
	return slices.Compact([]string{
		origin + "/.well-known/oauth-authorization-server" + path,
		origin + "/.well-known/openid-configuration" + path,
		origin + path + "/.well-known/openid-configuration",
	})
}

// discover looks at one location. If its error is a [*ServerError] or ErrIssuerMismatch, the
// metadata may be at another one.
func discover(ctx context.Context, location string, u *url.URL, issuer string, hc *http.Client) (Provider, error) {
	limited, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	var wrote, dialed atomic.Bool // as in post
	traced := httptrace.WithClientTrace(limited, &httptrace.ClientTrace{
		GetConn:      func(string) { dialed.Store(true) },
		WroteHeaders: func() { wrote.Store(true) },
	})
	req, err := http.NewRequestWithContext(traced, http.MethodGet, location, nil)
	if err != nil {
		return Provider{}, &UnreachableError{redacted(err, nil)}
	}
	req.Header.Set("Accept", "application/json")
	resp, err := hc.Do(req)
	switch {
	case err != nil && ctx.Err() != nil:
		return Provider{}, retry.Ended(ctx)
	case err != nil && !wrote.Load() && (dialed.Load() || isDialError(err)):
		return Provider{}, &UnreachableError{redacted(err, nil)}
	case err != nil:
		return Provider{}, &lostError{redacted(err, nil)}
	}
	body, err := readBody(limited, resp)
	switch {
	case err != nil && ctx.Err() != nil:
		return Provider{}, retry.Ended(ctx)
	case err != nil && !errors.Is(err, wire.ErrTooLarge) && !errors.Is(err, errNotFinal):
		return Provider{}, &lostError{redacted(err, nil)}
	case resp.StatusCode != http.StatusOK:
		refusal := parseRefusal(resp, body, err, "the issuer", nil)
		if refusal.Code == "" && refusal.Status >= 400 {
			refusal.Err = nil // the status says it all
		}
		return Provider{}, refusal
	}
	var p Provider
	if err == nil {
		p, err = parseMetadata(body, u, issuer)
	}
	if err != nil && !errors.Is(err, ErrIssuerMismatch) {
		return Provider{}, &ServerError{
			Status: resp.StatusCode, RequestID: wire.RequestID(resp.Header),
			Err: fmt.Errorf("%w: %w", ErrMalformedResponse, err),
		}
	}
	return p, err
}

// parseMetadata reads a document of RFC 8414 §2, or of OpenID Connect Discovery 1.0 §3.
func parseMetadata(body []byte, u *url.URL, issuer string) (Provider, error) {
	m, err := strictjson.Object(body)
	if err != nil {
		return Provider{}, err
	}
	// "The issuer value returned MUST be identical to the authorization server's issuer
	// identifier value […]. If these values are not identical, the data contained in the
	// response MUST NOT be used" (RFC 8414 §3.3).
	found, err := stringMember(m, "issuer")
	switch {
	case err != nil:
		return Provider{}, err
	case found == "":
		return Provider{}, errors.New("issuer is missing")
	case found != issuer:
		return Provider{}, ErrIssuerMismatch
	}
	p := Provider{Name: issuer, Issuer: issuer}
	for _, e := range []struct {
		member string
		field  *string
	}{
		{"token_endpoint", &p.TokenURL},
		{"authorization_endpoint", &p.AuthURL},
		{"device_authorization_endpoint", &p.DeviceAuthURL},
		{"pushed_authorization_request_endpoint", &p.PushedAuthURL},
		{"revocation_endpoint", &p.RevocationURL},
	} {
		if *e.field, err = endpointMember(m, e.member, u); err != nil {
			return Provider{}, fmt.Errorf("%s %w", e.member, err)
		}
	}
	if p.TokenURL == "" {
		return Provider{}, errors.New("token_endpoint is missing")
	}
	for member, field := range map[string]*bool{
		"authorization_response_iss_parameter_supported": &p.RequireIss, // RFC 9207 §3
		"require_pushed_authorization_requests":          &p.RequirePAR, // RFC 9126 §5
	} {
		if raw, ok := m[member]; ok && json.Unmarshal(raw, field) != nil {
			return Provider{}, fmt.Errorf("%s is not a boolean", member)
		}
	}
	if p.RequirePAR && p.PushedAuthURL == "" {
		return Provider{}, errors.New("pushed_authorization_request_endpoint is missing, and required")
	}
	var scopes, proofAlgs []string
	for member, field := range map[string]*[]string{
		"scopes_supported":                                 &scopes,
		"dpop_signing_alg_values_supported":                &proofAlgs, // RFC 9449 §5.1
		"token_endpoint_auth_signing_alg_values_supported": &p.AuthSigningAlgs,
	} {
		if raw, ok := m[member]; ok && json.Unmarshal(raw, field) != nil {
			return Provider{}, fmt.Errorf("%s is not an array of strings", member)
		}
	}
	for _, scope := range []string{"openid", offlineAccess} {
		if slices.Contains(scopes, scope) {
			p.Scopes = append(p.Scopes, scope)
		}
	}
	if slices.Contains(scopes, offlineAccess) {
		p.OfflineScope = offlineAccess
	}
	if len(proofAlgs) > 0 {
		p.ThumbprintHash = crypto.SHA256 // RFC 9449 §10
	}
	return p, nil
}

// offlineAccess is the scope that asks for a refresh token (OpenID Connect Core 1.0 §11).
const offlineAccess = "offline_access"

// checkServerURL is [wire.CheckURL] for the URLs that a server is described by. An empty
// fragment, which [url.URL] does not show, is rejected as well: identifiers are compared as
// strings.
func checkServerURL(raw string) (*url.URL, error) {
	u, err := wire.CheckURL(raw)
	if err != nil {
		return nil, err
	}
	if strings.Contains(raw, "#") {
		return nil, errors.New("has a fragment")
	}
	if port := u.Port(); port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return nil, errors.New("has a port above 65535")
		}
	}
	return u, nil
}

// endpointMember returns a URL to which credentials may be sent, "" if there is none. The
// metadata of an issuer on the network must not name a loopback address.
func endpointMember(m map[string]json.RawMessage, name string, issuer *url.URL) (string, error) {
	raw, err := stringMember(m, name)
	if raw == "" || err != nil {
		return "", err
	}
	u, err := checkServerURL(raw)
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(u.Scheme, "https") && strings.EqualFold(issuer.Scheme, "https") {
		return "", errors.New("uses http, and the issuer uses https")
	}
	if wire.IsLoopback(u.Hostname()) && !wire.IsLoopback(issuer.Hostname()) {
		return "", errors.New("is on a loopback address, and the issuer is not")
	}
	return raw, nil
}
