package conformance

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// A client of the Model Context Protocol that uses packages oauth and dpop for its
// authorization. The test binary becomes this client when the conformance suite of that
// protocol starts it: the suite sets the variables below and passes the server's URL.

const (
	mcpScenarioVar = "MCP_CONFORMANCE_SCENARIO"
	mcpVersionVar  = "MCP_CONFORMANCE_PROTOCOL_VERSION"
	mcpContextVar  = "MCP_CONFORMANCE_CONTEXT" // JSON: what the client knows beforehand

	// mcpStateless is the first version without a handshake, and with which each request
	// describes the client. mcpLegacy has no metadata of resources.
	mcpStateless = "2026-07-28"
	mcpLegacy    = "2025-03-26"

	// mcpDocument is the client's identifier at servers that take the URL of a document
	// for one. The suite knows it.
	mcpDocument = "https://conformance-test.local/client-metadata.json"

	// mcpMaxLogins is how often a user is asked to log in for one request.
	mcpMaxLogins = 2
)

// How a run of the client ends. It prints one of these, or another error.
const (
	mcpCalled        = "the tool was called"
	mcpOtherIssuer   = "the issuer is another one"
	mcpOtherResource = "the metadata are those of another resource"
	mcpScopeRefused  = "the scope is not enough, however often the user logs in"
	mcpLeftOut       = "left out"
)

var (
	errMCPResource = errors.New(mcpOtherResource)
	errMCPScope    = errors.New(mcpScopeRefused)
	errMCPNone     = errors.New("there is no document")
)

// mcpMain is the program's main function.
func mcpMain(scenario, server string) int {
	outcome, code := mcpCalled, 1
	switch err := mcpRun(scenario, server); {
	case err == nil:
		code = 0
	case errors.Is(err, oauth.ErrIssuerMismatch):
		outcome = mcpOtherIssuer
	case errors.Is(err, errMCPResource):
		outcome = mcpOtherResource
	case errors.Is(err, errMCPScope):
		outcome = mcpScopeRefused
	default:
		outcome = "error: " + err.Error()
	}
	fmt.Println(outcome)
	return code
}

func mcpRun(scenario, server string) (err error) {
	if _, out := mcpNotRun[scenario]; out || !strings.HasPrefix(scenario, "auth/") {
		return errors.New(mcpLeftOut)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	c := &mcpClient{
		server:  server,
		origin:  u.Scheme + "://" + u.Host,
		path:    u.Path,
		version: os.Getenv(mcpVersionVar),
		known:   make(map[string]mcpRegistration),
	}
	if given := os.Getenv(mcpContextVar); given != "" {
		var r struct {
			Issuer string
			ID     string `json:"client_id"`
			Secret string `json:"client_secret"`
		}
		if err := json.Unmarshal([]byte(given), &r); err != nil {
			return err
		}
		c.known[r.Issuer] = mcpRegistration{ID: r.ID, Secret: oauth.Secret(r.Secret)}
	}
	defer func() { err = errors.Join(err, c.close()) }()
	methods := []string{"tools/list", "tools/call"}
	if c.version < mcpStateless {
		methods = append([]string{"initialize", "notifications/initialized"}, methods...)
	}
	for _, method := range methods {
		if err := c.request(ctx, method); err != nil {
			return err
		}
	}
	return nil
}

// An mcpClient is one run of the client.
type mcpClient struct {
	server, origin, path string // the MCP server
	version              string // of the protocol
	id                   int    // of the last request

	known    map[string]mcpRegistration // by issuer: a registration is good for that one only
	loggedIn *oauth.Client              // nil before the first login
	scopes   []string                   // requested in the last login
	issuer   string                     // at which the last login was
}

// An mcpRegistration is a client at an authorization server.
type mcpRegistration struct {
	ID     string           `json:"client_id"`
	Secret oauth.Secret     `json:"client_secret"`
	Method oauth.AuthMethod `json:"token_endpoint_auth_method"`
}

func (c *mcpClient) close() error {
	if c.loggedIn == nil {
		return nil
	}
	return c.loggedIn.TokenSource().Close()
}

// request sends one request, and lets the user log in if the server says so.
func (c *mcpClient) request(ctx context.Context, method string) error {
	for logins := 0; ; logins++ {
		resp, body, err := c.send(ctx, method)
		if err != nil {
			return err
		}
		challenge := parseMCPChallenge(resp.Header)
		switch {
		case resp.StatusCode == http.StatusAccepted:
			return nil
		case resp.StatusCode == http.StatusOK:
			return checkMCPResult(resp.Header, body)
		case resp.StatusCode == http.StatusUnauthorized && logins < mcpMaxLogins:
		case resp.StatusCode == http.StatusForbidden && challenge.err == "insufficient_scope":
			if logins == mcpMaxLogins {
				return errMCPScope
			}
		default:
			return fmt.Errorf("%s: %s %s", method, resp.Status, body)
		}
		if err := c.logIn(ctx, challenge); err != nil {
			return err
		}
	}
}

// send sends a request of JSON-RPC, with a token if there is one.
func (c *mcpClient) send(ctx context.Context, method string) (*http.Response, []byte, error) {
	params := map[string]any{}
	info := map[string]string{"name": "ycauth-conformance", "version": "1.0.0"}
	if method == "tools/call" {
		params["name"], params["arguments"] = "test-tool", map[string]any{}
	}
	switch {
	case method == "initialize":
		params["protocolVersion"], params["capabilities"], params["clientInfo"] = c.version, map[string]any{}, info
	case c.version >= mcpStateless:
		const prefix = "io.modelcontextprotocol/"
		params["_meta"] = map[string]any{prefix + "protocolVersion": c.version, prefix + "clientCapabilities": map[string]any{}, prefix + "clientInfo": info}
	}
	message := map[string]any{"jsonrpc": "2.0", "method": method, "params": params}
	if !strings.HasPrefix(method, "notifications/") {
		c.id++
		message["id"] = c.id
	}
	data, err := json.Marshal(message)
	if err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.server, bytes.NewReader(data))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if method != "initialize" {
		req.Header.Set("MCP-Protocol-Version", c.version)
	}
	if c.version >= mcpStateless {
		req.Header.Set("Mcp-Method", method)
		if name, ok := params["name"].(string); ok {
			req.Header.Set("Mcp-Name", name)
		}
	}
	hc := plain
	if c.loggedIn != nil {
		hc = c.loggedIn.HTTPClient()
	}
	return exchangeHTTP(hc, req)
}

// exchangeHTTP sends a request and reads the response.
func exchangeHTTP(hc *http.Client, req *http.Request) (*http.Response, []byte, error) {
	resp, err := hc.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// checkMCPResult wants a result, in JSON or as the one event of a stream.
func checkMCPResult(h http.Header, body []byte) error {
	if kind, _, _ := mime.ParseMediaType(h.Get("Content-Type")); kind == "text/event-stream" {
		_, after, _ := bytes.Cut(body, []byte("data: "))
		body, _, _ = bytes.Cut(after, []byte("\n"))
	}
	var message struct{ Result, Error json.RawMessage }
	if err := json.Unmarshal(body, &message); err != nil {
		return err
	}
	if message.Error != nil || message.Result == nil {
		return fmt.Errorf("the response is %s", body)
	}
	return nil
}

// An mcpChallenge is what a WWW-Authenticate header says (RFC 6750 §3, RFC 9728 §5.1).
type mcpChallenge struct {
	err, metadata string
	scopes        []string
}

var mcpParameter = regexp.MustCompile(`\b(error|scope|resource_metadata)="([^"]*)"`)

func parseMCPChallenge(h http.Header) mcpChallenge {
	var c mcpChallenge
	for _, m := range mcpParameter.FindAllStringSubmatch(h.Get("WWW-Authenticate"), -1) {
		switch m[1] {
		case "error":
			c.err = m[2]
		case "scope":
			c.scopes = strings.Fields(m[2])
		case "resource_metadata":
			c.metadata = m[2]
		}
	}
	return c
}

// logIn goes from a challenge to a session at the server that the resource names.
func (c *mcpClient) logIn(ctx context.Context, challenge mcpChallenge) error {
	resource, err := c.describeResource(ctx, challenge)
	if err != nil {
		return err
	}
	provider, server, err := c.describeServer(ctx, resource.Servers[0])
	if err != nil {
		return err
	}
	registration, err := c.registerAt(ctx, provider, server)
	if err != nil {
		return err
	}
	provider.AuthMethod = registration.Method
	// The scopes of the challenge come before those of the resource. What was requested
	// before is requested again, so that the user does not lose it.
	scopes := challenge.scopes
	if scopes == nil {
		scopes = resource.Scopes
	}
	if c.issuer == provider.Issuer {
		scopes = append(slices.Clone(c.scopes), scopes...)
	}
	if provider.OfflineScope != "" {
		scopes = append(slices.Clone(scopes), provider.OfflineScope)
	}
	scopes = slices.Clone(scopes)
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	cfg := oauth.Config{
		Provider:   provider,
		ClientID:   registration.ID,
		Scopes:     append([]string{}, scopes...), // none, rather than those of the provider
		HTTPClient: plain,
	}
	if registration.Method != oauth.AuthNone {
		cfg.ClientSecret = registration.Secret
	}
	if resource.Resource != "" {
		cfg.Resources = []string{resource.Resource}
	}
	if provider.ThumbprintHash != 0 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		if cfg.DPoP, err = dpop.New(key); err != nil {
			return err
		}
	}
	client, err := oauth.New(cfg)
	if err != nil {
		return err
	}
	if err := errors.Join(c.close(), logInBy(ctx, client)); err != nil {
		return errors.Join(err, client.TokenSource().Close())
	}
	c.loggedIn, c.scopes, c.issuer = client, scopes, provider.Issuer
	return nil
}

// logInBy is a login with a user who agrees to everything: the server asks nothing.
func logInBy(ctx context.Context, client *oauth.Client) error {
	_, err := client.Login(ctx, oauth.LoginOptions{OpenURL: func(ctx context.Context, target string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return err
		}
		_, _, err = exchangeHTTP(plain, req)
		return err
	}})
	return err
}

// An mcpResource is the metadata of a resource (RFC 9728 §2).
type mcpResource struct {
	Resource string
	Servers  []string `json:"authorization_servers"`
	Scopes   []string `json:"scopes_supported"`
}

// describeResource finds the metadata where the challenge says, or else for the path and
// then for the whole host. They must be those of the resource that was asked (§3.3).
func (c *mcpClient) describeResource(ctx context.Context, challenge mcpChallenge) (mcpResource, error) {
	const wellKnown = "/.well-known/oauth-protected-resource"
	type place struct{ url, resource string }
	places := []place{{c.origin + wellKnown + c.path, c.server}, {c.origin + wellKnown, c.origin}}
	if challenge.metadata != "" {
		places = []place{{challenge.metadata, c.server}}
	}
	for _, p := range places {
		var found mcpResource
		err := getMCPDocument(ctx, p.url, &found)
		switch {
		case errors.Is(err, errMCPNone):
			continue
		case err != nil:
			return mcpResource{}, err
		case found.Resource != p.resource:
			return mcpResource{}, fmt.Errorf("%w: %s", errMCPResource, found.Resource)
		case len(found.Servers) == 0:
			return mcpResource{}, errors.New("the resource names no authorization server")
		}
		return found, nil
	}
	if c.version == mcpLegacy {
		return mcpResource{Servers: []string{c.origin}}, nil // the resource is the server
	}
	return mcpResource{}, errors.New("the resource has no metadata")
}

func getMCPDocument(ctx context.Context, location string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return err
	}
	resp, body, err := exchangeHTTP(plain, req)
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotFound:
		return errMCPNone
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", location, resp.Status)
	}
	return json.Unmarshal(body, v)
}

// An mcpServer is what the metadata of an authorization server say of registration, of
// which package oauth knows nothing.
type mcpServer struct {
	Registration string   `json:"registration_endpoint"`
	Documents    bool     `json:"client_id_metadata_document_supported"`
	Methods      []string `json:"token_endpoint_auth_methods_supported"`
	PKCE         []string `json:"code_challenge_methods_supported"`
}

// describeServer lets package oauth find and check the metadata of a server, and reads the
// same document for what is left.
func (c *mcpClient) describeServer(ctx context.Context, issuer string) (oauth.Provider, mcpServer, error) {
	seen := new(documents)
	provider, err := oauth.Discover(ctx, issuer, &http.Client{Transport: seen})
	var absent *oauth.ServerError
	if c.version == mcpLegacy && errors.As(err, &absent) && absent.Status == http.StatusNotFound {
		// That version has default endpoints.
		return oauth.Provider{Name: issuer, Issuer: issuer, AuthURL: issuer + "/authorize", TokenURL: issuer + "/token"},
			mcpServer{Registration: issuer + "/register", Methods: []string{"none"}}, nil
	}
	if err != nil {
		return oauth.Provider{}, mcpServer{}, err
	}
	var server mcpServer
	if err := json.Unmarshal(seen.last, &server); err != nil {
		return oauth.Provider{}, mcpServer{}, err
	}
	if !slices.Contains(server.PKCE, "S256") {
		return oauth.Provider{}, mcpServer{}, errors.New("the server does not say that it checks PKCE")
	}
	return provider, server, nil
}

// documents is an http.RoundTripper that keeps the last body that came with the status 200.
type documents struct{ last []byte }

func (d *documents) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := plain.Transport.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	if d.last, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(d.last))
	return resp, nil
}

// registerAt returns the client at a server: the one that was registered before, the one with
// a document, or a new one (RFC 7591).
func (c *mcpClient) registerAt(ctx context.Context, provider oauth.Provider, server mcpServer) (mcpRegistration, error) {
	method := oauth.AuthClientSecretBasic // the default of RFC 8414 §2
	for _, m := range []oauth.AuthMethod{oauth.AuthClientSecretPost, oauth.AuthClientSecretBasic, oauth.AuthNone} {
		if slices.Contains(server.Methods, string(m)) {
			method = m
		}
	}
	if r, ok := c.known[provider.Issuer]; ok {
		if r.Method == "" {
			r.Method = method
		}
		return r, nil
	}
	if server.Documents {
		return mcpRegistration{ID: mcpDocument, Method: oauth.AuthNone}, nil
	}
	if server.Registration == "" {
		return mcpRegistration{}, errors.New("the server does not register clients")
	}
	data, err := json.Marshal(map[string]any{
		"client_name":                "ycauth-conformance",
		"application_type":           "native",
		"redirect_uris":              []string{"http://127.0.0.1/auth/callback"}, // with any port (RFC 8252 §7.3)
		"grant_types":                []string{"authorization_code", "refresh_token"},
		"response_types":             []string{"code"},
		"token_endpoint_auth_method": method,
	})
	if err != nil {
		return mcpRegistration{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.Registration, bytes.NewReader(data))
	if err != nil {
		return mcpRegistration{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, body, err := exchangeHTTP(plain, req)
	if err != nil {
		return mcpRegistration{}, err
	}
	r := mcpRegistration{Method: method}
	if resp.StatusCode != http.StatusCreated || json.Unmarshal(body, &r) != nil || r.ID == "" {
		return mcpRegistration{}, fmt.Errorf("registration: %s %s", resp.Status, body)
	}
	c.known[provider.Issuer] = r
	return r, nil
}

// mcpTimeout is how long the suite waits for one run of the client.
const mcpTimeout = patience + 10*time.Second
