package dpop

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const (
	schemeDPoP   = "DPoP"
	schemeBearer = "Bearer"

	codeInvalidRequest = "invalid_request"

	// maxAccessToken is the longest access token looked up, in octets.
	maxAccessToken = 16 << 10

	// retryAfter is the Retry-After of a 503, in seconds.
	retryAfter = 5
)

// ErrInvalidToken is what [ResourceServer.Lookup] returns for an access token that is
// unknown, malformed, expired or revoked.
var ErrInvalidToken = errors.New("dpop: the access token is not valid")

// TokenInfo is what a resource server knows of a valid access token.
type TokenInfo struct {
	// Thumbprint is the SHA-256 JWK thumbprint of the key that the token is bound to
	// (cnf.jkt, RFC 9449 §6). Such a token is accepted only with the scheme DPoP and a
	// proof of that key. "" if the token is not bound to a key: its scheme is Bearer.
	Thumbprint string

	// Value is for the handler, for instance the subject and the scopes of the token.
	// Optional.
	Value any

	// Proof is the proof of the request, nil with a Bearer token. It is set by the
	// ResourceServer.
	Proof *VerifiedProof
}

type tokenInfoKey struct{}

// TokenInfoFromContext returns the TokenInfo of a request that a [ResourceServer]
// accepted, and nil for any other context.
func TokenInfoFromContext(ctx context.Context) *TokenInfo {
	info, _ := ctx.Value(tokenInfoKey{}).(*TokenInfo)
	return info
}

// An Outcome is what a [ResourceServer] decided about a request. Scheme, Status and Code
// have few values, so that they can be labels of metrics. Only Err can contain a part of
// the request.
type Outcome struct {
	// Scheme is "DPoP" or "Bearer", the scheme of the Authorization header. "" if there is
	// no such header, more than one, or one of another scheme.
	Scheme string

	// Status is 0 if the request was accepted, and otherwise the status of the response:
	// 400, 401 or 503.
	Status int

	// Code is the error code in the response: invalid_request, invalid_token,
	// invalid_dpop_proof or use_dpop_nonce. "" if there is none.
	Code string

	// Reason says in one line, for people, why the request was rejected. "" if it was
	// accepted.
	Reason string

	// Err is the error of the [Verifier], of Lookup or of the [ReplayCache], for errors.Is
	// and errors.As: [ErrReplay], [ErrWrongKey], [ErrIssuedAt], [ErrUseNonce],
	// [ErrUnboundToken], [ErrInvalidToken] and others. nil if none of them failed. Errors
	// of the program's own functions should not be sent to clients.
	Err error
}

// A ResourceServer protects HTTP handlers with access tokens that are bound to keys (RFC
// 9449 §7), and with Bearer tokens if Bearer is set. [ResourceServer.Handler] calls the
// next handler only for a request that it accepts.
//
// Such a request has one Authorization header with the scheme DPoP and the access token,
// and one DPoP header with a proof for this request by the key of the token. A bound token
// with the scheme Bearer is rejected (§7.2), and so is a token without a key with the
// scheme DPoP. Access tokens in the query or in the body are not accepted; one in the
// query in addition to the header is an error (RFC 6750 §2). The body of a request is not
// read. The token and the proof may have 16 KiB each. To limit all headers together, set
// [http.Server.MaxHeaderBytes].
//
// # Responses
//
// A rejected request gets one WWW-Authenticate header for each accepted scheme (RFC 9449
// §7.1). The one of the scheme that the request used has the error code:
//
//	400  invalid_request     several Authorization headers, a malformed one, or a second token
//	400  invalid_request     a request target without a path, such as that of CONNECT
//	401                      no access token in the header, or a scheme that is not accepted
//	401  invalid_token       not valid, bound to another key, or with the wrong scheme
//	401  invalid_dpop_proof  the proof is missing, invalid, too old, or was used before
//	401  use_dpop_nonce      the proof has no nonce that is accepted (§9)
//	503                      Lookup or the replay cache failed; with Retry-After: 5
//
// If Lookup or the replay cache fails, the request is rejected, because the token may be
// revoked and the proof may be a replay. The client can repeat the request with a new
// proof. No part of a request is repeated in a response.
//
// # Nonces
//
// With Nonces, every proof must contain a nonce. A response with status 401 brings one in
// the DPoP-Nonce header. The response to an accepted request brings one if that of the
// proof is not the current one, so a client that sends a request in each period is not
// challenged again.
// A response with a nonce has "Cache-Control: no-store" (§8.2), unless the next handler
// replaces that.
//
// # Browsers
//
// CORS is the program's business. A preflight request has no access token, so it must be
// answered before it reaches this handler. Scripts can read the challenge and the nonce
// only if the response has "Access-Control-Expose-Headers: WWW-Authenticate, DPoP-Nonce"
// (§7.1, §8).
//
// A ResourceServer is safe for concurrent use. Its fields must not be changed, nor the
// ResourceServer copied, after the first call of Handler.
type ResourceServer struct {
	// Lookup returns what is known of an access token. It must be safe for concurrent use.
	// Required.
	//
	// If the token is not valid, Lookup returns an error that matches [ErrInvalidToken]
	// (errors.Is). Any other error means that the token could not be checked, and the
	// response is 503. The texts of errors are not sent. A TokenInfo without Thumbprint
	// means that the token is valid without a proof.
	Lookup func(ctx context.Context, token string) (TokenInfo, error)

	// BaseURL is the URL at which clients reach the path "/" of the handler, for instance
	// "https://api.example.com". A path prefix that a proxy or [http.StripPrefix] removes
	// is part of it: "https://example.com/api". Required unless BaseURLFunc is set.
	//
	// The URL of a proof (htu) must be BaseURL followed by the path of the request. The
	// headers Host, Forwarded and X-Forwarded-* are ignored, because a client can set them.
	BaseURL string

	// BaseURLFunc returns the BaseURL for one request, for servers that have several. If
	// it uses a header, it must know that its own proxy has set it, or compare the result
	// with a list. If it returns "", the request is rejected with 400.
	// Optional. Default: BaseURL.
	BaseURLFunc func(*http.Request) string

	// Bearer also accepts tokens that are not bound to a key, with the scheme Bearer
	// (RFC 6750). Optional. Default: they are rejected.
	Bearer bool

	// Verifier verifies the proofs. It determines the algorithms, the ages and the memory
	// of proofs, and can be shared. A server of several processes sets [Verifier.Replays].
	// Optional. Default: a zero Verifier.
	Verifier *Verifier

	// Nonces makes nonces mandatory, and replaces [Verifier.CheckNonce].
	// Optional. Default: no nonces, unless the Verifier has a CheckNonce. Then the
	// program itself must send them.
	Nonces *NonceIssuer

	// Realm and ResourceMetadata are parameters of each challenge: realm (RFC 9110 §11.5)
	// and resource_metadata, the URL of the protected resource metadata (RFC 9728 §5.1).
	// They must be printable ASCII without double quotes and backslashes. Optional.
	Realm, ResourceMetadata string

	// WriteError writes the response to a rejected request: the status, and a body in the
	// format of the API. The headers described above are set already. If WriteError sets no
	// status, it is o.Status.
	// Optional. Default: the body is o.Reason as text/plain.
	WriteError func(w http.ResponseWriter, r *http.Request, o Outcome)

	// Observe is called once for each request, before the next handler is called or the
	// response is written. It must be safe for concurrent use. Optional.
	Observe func(ctx context.Context, o Outcome)

	own Verifier
}

// Handler returns a handler that passes accepted requests to next, and rejects others. next
// gets the [TokenInfo] with [TokenInfoFromContext]. All handlers of a ResourceServer share
// one memory of proofs.
//
// Handler panics if a required field is missing or a field is invalid.
func (s *ResourceServer) Handler(next http.Handler) http.Handler {
	g := &guard{s: s, next: next, verifier: s.Verifier}
	if g.verifier == nil {
		g.verifier = &s.own
	}
	switch {
	case next == nil:
		panic("dpop: the handler that a ResourceServer protects is nil")
	case s.Lookup == nil:
		panic("dpop: ResourceServer.Lookup is nil")
	case s.Nonces != nil && s.Nonces.keys == nil:
		panic("dpop: ResourceServer.Nonces has no key: use NewNonceIssuer")
	case !validParam(s.Realm) || !validParam(s.ResourceMetadata):
		panic("dpop: ResourceServer.Realm and ResourceMetadata must be printable ASCII without quotes and backslashes")
	}
	if s.BaseURLFunc == nil {
		base, err := parseBase(s.BaseURL)
		if err != nil {
			panic("dpop: ResourceServer.BaseURL: " + err.Error())
		}
		g.base = base
	}
	if s.Nonces != nil {
		g.checkNonce = s.Nonces.Check
	} else {
		g.checkNonce = g.verifier.CheckNonce
	}
	g.algs = g.verifier.algs()
	return g
}

// guard is the handler of a ResourceServer.
type guard struct {
	s          *ResourceServer
	next       http.Handler
	verifier   *Verifier
	checkNonce func(string) bool
	base       string // "" with BaseURLFunc
	algs       string // for challenges
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, o := g.authorize(r)
	if g.s.Observe != nil {
		g.s.Observe(r.Context(), o)
	}
	if o.Status != 0 {
		g.reject(w, r, o)
		return
	}
	if g.s.Nonces != nil && info.Proof != nil {
		if _, outdated := g.s.Nonces.check(info.Proof.Nonce); outdated {
			g.offerNonce(w.Header())
		}
	}
	g.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), tokenInfoKey{}, info)))
}

// authorize decides about a request.
func (g *guard) authorize(r *http.Request) (*TokenInfo, Outcome) {
	scheme, token, o := g.credentials(r)
	if o.Status != 0 {
		return nil, o
	}
	if !validTarget(r) {
		return nil, Outcome{scheme, http.StatusBadRequest, codeInvalidRequest, "the target of the request is neither a path nor an http or https URL with a path", nil}
	}
	info, err := g.s.Lookup(r.Context(), token)
	switch {
	case errors.Is(err, ErrInvalidToken):
		return nil, Outcome{scheme, http.StatusUnauthorized, codeInvalidToken, "the access token is unknown, expired or revoked", err}
	case err != nil:
		return nil, unavailable(scheme, err)
	}
	info.Proof = nil
	bound := info.Thumbprint != ""
	switch {
	case scheme == schemeBearer && bound:
		// "such a protected resource MUST reject a DPoP-bound access token received as a
		// bearer token" (RFC 9449 §7.2).
		return nil, Outcome{scheme, http.StatusUnauthorized, codeInvalidToken, "the access token is bound to a key: its scheme is DPoP", nil}
	case scheme == schemeBearer:
		return &info, Outcome{Scheme: scheme}
	case !bound:
		return nil, Outcome{scheme, http.StatusUnauthorized, codeInvalidToken, "the access token is not bound to a key", ErrUnboundToken}
	}
	want := Expected{URL: g.url(r), AccessToken: token, Thumbprint: info.Thumbprint}
	if want.URL == "" {
		return nil, Outcome{scheme, http.StatusBadRequest, codeInvalidRequest, "this server has no resource at the URL of the request", nil}
	}
	info.Proof, err = g.verifier.verifyRequest(r, want, g.checkNonce)
	if err == nil {
		return &info, Outcome{Scheme: scheme}
	}
	var bad *ProofError
	if !errors.As(err, &bad) {
		return nil, unavailable(scheme, err)
	}
	code := bad.Code()
	if errors.Is(err, ErrWrongKey) {
		// "rejected because the confirmation of the DPoP binding in the access token failed"
		// is the example of invalid_token in RFC 9449 §7.1.
		code = codeInvalidToken
	}
	return nil, Outcome{scheme, http.StatusUnauthorized, code, bad.Reason, err}
}

func unavailable(scheme string, err error) Outcome {
	return Outcome{scheme, http.StatusServiceUnavailable, "", "the access token or the proof cannot be checked at the moment", err}
}

// credentials returns the scheme and the access token of a request.
func (g *guard) credentials(r *http.Request) (scheme, token string, o Outcome) {
	headers := r.Header.Values("Authorization")
	inQuery := r.URL.RawQuery != "" && r.URL.Query().Has("access_token")
	switch {
	case len(headers) == 0 && inQuery:
		return "", "", Outcome{Status: http.StatusUnauthorized, Reason: "an access token in the query is not accepted"}
	case len(headers) == 0:
		return "", "", Outcome{Status: http.StatusUnauthorized, Reason: "the request has no access token"}
	case len(headers) > 1:
		return "", "", Outcome{Status: http.StatusBadRequest, Code: codeInvalidRequest, Reason: "the request has more than one Authorization header"}
	}
	scheme, token, ok := parseAuthorization(headers[0])
	switch {
	case scheme == "" || scheme == schemeBearer && !g.s.Bearer:
		// "attempted using an unsupported authentication method": no error code (RFC 6750 §3.1).
		return "", "", Outcome{Scheme: scheme, Status: http.StatusUnauthorized, Reason: "the scheme of the Authorization header is not accepted"}
	case !ok:
		return "", "", Outcome{scheme, http.StatusBadRequest, codeInvalidRequest, "the Authorization header is not a scheme and one access token of at most 16 KiB", nil}
	case inQuery: // "Clients MUST NOT use more than one method to transmit the token in each request" (RFC 6750 §2)
		return "", "", Outcome{scheme, http.StatusBadRequest, codeInvalidRequest, "the request has a second access token in the query", nil}
	}
	return scheme, token, Outcome{}
}

// parseAuthorization parses an Authorization header: the scheme DPoP or Bearer, spaces and
// a token68 (RFC 9449 §7.1, RFC 6750 §2.1). The scheme is "" if it is another one, and ok
// reports whether a token follows it.
func parseAuthorization(value string) (scheme, token string, ok bool) {
	name, token, _ := strings.Cut(value, " ")
	switch {
	case strings.EqualFold(name, schemeDPoP):
		scheme = schemeDPoP
	case strings.EqualFold(name, schemeBearer):
		scheme = schemeBearer
	default:
		return "", "", false
	}
	token = strings.TrimLeft(token, " ")
	if !isToken68(token) || len(token) > maxAccessToken {
		return scheme, "", false
	}
	return scheme, token, true
}

// isToken68 reports whether s is a token68 (RFC 9110 §11.2): unreserved characters, "+" and
// "/", at least one, and then any number of "=".
func isToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		if c := s[i]; !isUnreserved(c) && c != '+' && c != '/' {
			return false
		}
	}
	return s != ""
}

// parseBase returns a base URL without a slash at its end.
func parseBase(raw string) (string, error) {
	if strings.ContainsAny(raw, "?#") {
		return "", errors.New("has a query or a fragment")
	}
	base, err := normalizeURL(raw)
	return strings.TrimRight(base, "/"), err
}

// url is the URL that the client requested, or "" if BaseURLFunc knows none.
func (g *guard) url(r *http.Request) string {
	base := g.base
	if g.s.BaseURLFunc != nil {
		var err error
		if base, err = parseBase(g.s.BaseURLFunc(r)); err != nil {
			return ""
		}
	}
	path := r.URL.EscapedPath()
	switch {
	case path == asterisk && isAsterisk(r):
		path = "/"
	case path != "" && path[0] != '/': // StripPrefix("/v1/", …) has removed the slash
		path = "/" + path
	}
	// The path alone, so that no dot segment leads out of the base.
	return base + removeDotSegments(normalizeEscapes(path))
}

// asterisk is the target of a request for the server as a whole: OPTIONS * (RFC 9112 §3.2.4).
const asterisk = "*"

// isAsterisk reports whether the target of r is an asterisk. Its path alone does not tell:
// that of "/v1/*" is one as well behind StripPrefix("/v1/", …). RequestURI is empty in a
// request that was not read from a connection.
func isAsterisk(r *http.Request) bool {
	return r.Method == http.MethodOptions && (r.RequestURI == asterisk || r.RequestURI == "" && r.URL.Path == asterisk)
}

// validTarget reports whether the target of r has a path: whether it is in origin-form, in
// absolute-form with a path, or an asterisk (RFC 9112 §3.2). net/http accepts others, such as
// "a:http://host/path", whose URL.Path is empty. A proxy behind this handler would request
// what URL.Opaque says, and the proof is not for that.
func validTarget(r *http.Request) bool {
	switch {
	case r.URL.Opaque != "" || r.URL.Scheme != "" && r.URL.Scheme != "http" && r.URL.Scheme != "https":
		return false
	case r.RequestURI == "" && r.URL.Path != asterisk, strings.HasPrefix(r.RequestURI, "/"), isAsterisk(r):
		return true
	}
	scheme, rest, found := strings.Cut(r.RequestURI, "://")
	if !found || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return false
	}
	end := strings.IndexAny(rest, "/?")
	return end > 0 && rest[end] == '/'
}

// reject writes the response to a request that is not accepted.
func (g *guard) reject(w http.ResponseWriter, r *http.Request, o Outcome) {
	h := w.Header()
	if o.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	} else {
		for _, c := range g.challenges(o) {
			h.Add("WWW-Authenticate", c)
		}
	}
	if g.s.Nonces != nil && o.Status == http.StatusUnauthorized {
		g.offerNonce(h)
	}
	if g.s.WriteError != nil {
		ew := &errorWriter{ResponseWriter: w, status: o.Status}
		g.s.WriteError(ew, r, o)
		ew.begin()
		return
	}
	http.Error(w, o.Reason, o.Status)
}

// errorWriter is a ResponseWriter whose status, if none is set, is that of the rejection
// instead of 200.
type errorWriter struct {
	http.ResponseWriter
	status int
	begun  bool
}

// begin writes the status, unless there is one.
func (w *errorWriter) begin() {
	if !w.begun {
		w.WriteHeader(w.status)
	}
}

func (w *errorWriter) WriteHeader(status int) {
	w.begun = w.begun || status >= 200 || status == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(status)
}

func (w *errorWriter) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p)
}

// FlushError is for [http.ResponseController].
func (w *errorWriter) FlushError() error {
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements [http.Flusher].
func (w *errorWriter) Flush() { _ = w.FlushError() }

// Unwrap is for [http.ResponseController].
func (w *errorWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// offerNonce gives the client the current nonce.
func (g *guard) offerNonce(h http.Header) {
	h.Set(NonceHeader, g.s.Nonces.Nonce())
	h.Set("Cache-Control", "no-store")
}

// challenges are those of the accepted schemes, the one with the error first.
func (g *guard) challenges(o Outcome) []string {
	list := []string{g.challenge(schemeDPoP, o)}
	if g.s.Bearer {
		list = append(list, g.challenge(schemeBearer, o))
		if o.Scheme == schemeBearer {
			slices.Reverse(list)
		}
	}
	return list
}

func (g *guard) challenge(scheme string, o Outcome) string {
	var b strings.Builder
	b.WriteString(scheme)
	separator := " "
	param := func(name, value string) {
		if value != "" {
			b.WriteString(separator + name + `="` + value + `"`)
			separator = ", "
		}
	}
	param("realm", g.s.Realm)
	if o.Code != "" && (o.Scheme == scheme || o.Scheme == "" && scheme == schemeDPoP) {
		param("error", o.Code)
		param("error_description", o.Reason)
	}
	if scheme == schemeDPoP {
		param("algs", g.algs)
	}
	param("resource_metadata", g.s.ResourceMetadata)
	return b.String()
}

// validParam reports whether s can stand in a quoted-string as it is.
func validParam(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c < 0x20 || c > 0x7e || c == '"' || c == '\\' }) < 0
}

// algs lists the accepted algorithms: "A space-delimited list of JWS alg (Algorithm) header
// values" (RFC 9449 §7.1).
func (v *Verifier) algs() string {
	list := v.Algorithms
	if len(list) == 0 {
		list = defaultAlgorithms
	}
	var names []string
	for _, alg := range list {
		names = append(names, string(alg))
		if alg == jose.EdDSA && !slices.Contains(list, algEd25519) {
			names = append(names, string(algEd25519))
		}
	}
	return strings.Join(names, " ")
}
