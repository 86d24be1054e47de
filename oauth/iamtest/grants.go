package iamtest

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
)

// A TokenState is the state of a refresh token.
type TokenState string

const (
	// TokenUnknown is a token that the server never issued, or has deleted.
	TokenUnknown TokenState = "unknown"
	// TokenCurrent is one that can be used.
	TokenCurrent TokenState = "current"
	// TokenReplaced is one that a newer one has replaced.
	TokenReplaced TokenState = "replaced"
	// TokenRevoked is one that was revoked, or whose grant was ended.
	TokenRevoked TokenState = "revoked"
	// TokenExpired is one that has expired but is still listed.
	TokenExpired TokenState = "expired"
)

// A grant is what a user gave a client: one login. It has at most one refresh
// token that can be used.
type grant struct {
	id         string
	subject    string
	client     string
	scope      string
	info       string // clientInstanceInfo: the User-Agent of the login
	jkt        string // SHA-256 thumbprint of the key; "" if it is not bound
	protection ProtectionLevel
	ended      string // why the grant is over; "" if it is not
	current    *refreshToken
	replaced   []*refreshToken // that current took the place of, the newest one last
	access     []*accessToken  // the newest one last
}

// remembered is how many replaced refresh tokens, and how many access tokens, a
// grant keeps. Older ones are unknown to the server, which bounds its memory where
// a test renews all day.
const remembered = 1000

type refreshToken struct {
	grant    *grant
	value    string
	id       string
	seq      int64 // ascending in the order of issue, to page by
	created  time.Time
	expires  time.Time
	lastUsed time.Time

	replaced  time.Time // zero while nothing took its place
	graceUses int
}

// A code is an authorization code and the request that it answered.
type code struct {
	client    string
	subject   string
	scope     string
	redirect  string
	challenge string
	jkt       string // dpop_jkt, made with hash jktHash
	expires   time.Time
	used      bool
	grant     *grant // what it was exchanged for
}

// state is everything the server remembers of logins. Its methods are called
// with Server.mu held.
type state struct {
	codes    map[string]*code
	refresh  map[string]*refreshToken // by value
	ids      map[string]*refreshToken // by id
	subjects map[string]*subject
	access   map[string]*accessToken
	grants   map[string]*grant // that have or had a refresh token
	seq      int64
	sweepAt  int // do so when there are this many codes, tokens and grants
}

func newState() *state {
	return &state{
		codes:    map[string]*code{},
		refresh:  map[string]*refreshToken{},
		ids:      map[string]*refreshToken{},
		subjects: map[string]*subject{},
		access:   map[string]*accessToken{},
		grants:   map[string]*grant{},
	}
}

// forget takes a refresh token out of the indexes.
func (st *state) forget(t *refreshToken) {
	delete(st.refresh, t.value)
	if st.ids[t.id] == t {
		delete(st.ids, t.id)
	}
}

// minSweep keeps servers with few tokens from being swept.
const minSweep = 4096

// sweep forgets what can serve nobody any more: what has expired, and grants of
// which nothing is left. It is called when something is added, and does its work
// when that has doubled.
func (st *state) sweep(now time.Time, o *Options) {
	size := func() int { return len(st.codes) + len(st.refresh) + len(st.access) + len(st.grants) }
	if size() < max(st.sweepAt, minSweep) {
		return
	}
	maps.DeleteFunc(st.codes, func(_ string, c *code) bool { return now.After(c.expires.Add(o.CodeLife)) })
	maps.DeleteFunc(st.access, func(_ string, t *accessToken) bool { return !now.Before(t.expires) })
	for _, t := range st.refresh {
		if t.state(now, o) == TokenUnknown {
			st.forget(t)
		}
	}
	maps.DeleteFunc(st.grants, func(_ string, g *grant) bool {
		g.access = slices.DeleteFunc(g.access, func(t *accessToken) bool { return !now.Before(t.expires) })
		return g.current.state(now, o) == TokenUnknown
	})
	st.sweepAt = 2 * size()
}

// state says what became of the token by now.
func (t *refreshToken) state(now time.Time, o *Options) TokenState {
	switch {
	case !t.expires.IsZero() && now.After(t.expires.Add(o.KeepExpired)):
		return TokenUnknown
	case t.grant.ended != "":
		return TokenRevoked
	case !t.replaced.IsZero():
		return TokenReplaced
	case !t.expires.IsZero() && !now.Before(t.expires):
		return TokenExpired
	}
	return TokenCurrent
}

// listed reports whether RefreshToken.List shows it.
func (t *refreshToken) listed(now time.Time, o *Options) bool {
	s := t.state(now, o)
	return s == TokenCurrent || s == TokenExpired
}

// add puts a token into every index.
func (st *state) add(t *refreshToken) {
	st.seq++
	t.seq = st.seq
	t.grant.current = t
	st.refresh[t.value] = t
	st.ids[t.id] = t
	st.grants[t.grant.id] = t.grant
	s := st.subjects[t.grant.subject]
	if s == nil {
		s = &subject{}
		st.subjects[t.grant.subject] = s
	}
	s.add(t)
}

// of returns the subject's refresh tokens.
func (st *state) of(name string) []*refreshToken {
	if s := st.subjects[name]; s != nil {
		return s.tokens
	}
	return nil
}

// issueRefresh gives the grant a refresh token, in place of the one that it has.
func (st *state) issueRefresh(now time.Time, o *Options, g *grant) *refreshToken {
	if g.current != nil {
		g.current.replaced = now
		g.replaced = append(g.replaced, g.current)
		if len(g.replaced) > remembered {
			st.forget(g.replaced[0])
			g.replaced = slices.Delete(g.replaced, 0, 1)
		}
	}
	t := &refreshToken{grant: g, value: newRefreshToken(o), id: newID("ajr"), created: now, expires: now.Add(o.RefreshLife)}
	st.add(t)
	return t
}

// issueAccess gives the grant an access token, or its newest one again where
// the options say so.
func (st *state) issueAccess(now time.Time, o *Options, g *grant, scope string) *accessToken {
	if n := len(g.access); n > 0 && o.SameTokenWhile > 0 {
		if last := g.access[n-1]; !last.revoked && last.scope == scope && last.expires.Sub(now) > o.SameTokenWhile {
			return last
		}
	}
	t := &accessToken{value: newAccessToken(o), subject: g.subject, client: g.client, scope: scope, expires: now.Add(o.AccessLife)}
	if o.TokenType == "DPoP" {
		t.jkt = g.jkt
	}
	g.access = slices.DeleteFunc(g.access, func(t *accessToken) bool { return !now.Before(t.expires) })
	g.access = append(g.access, t)
	if len(g.access) > remembered {
		delete(st.access, g.access[0].value)
		g.access = slices.Delete(g.access, 0, 1)
	}
	st.access[t.value] = t
	st.sweep(now, o)
	return t
}

// end revokes a grant and everything that hangs on it.
func (st *state) end(g *grant, why string, o *Options) {
	if g.ended == "" {
		g.ended = why
	}
	if o.RevokeAccessTokens {
		for _, t := range g.access {
			t.revoked = true
		}
	}
}

// presented is what a token request brought along.
type presented struct {
	client    Client
	proof     *dpop.VerifiedProof // nil if there was none
	secure    bool                // the proof's key is attested
	userAgent string
}

// issued is what a token request leads to. refresh is nil where the answer has
// no refresh_token.
type issued struct {
	access  *accessToken
	refresh *refreshToken
	scope   string
}

// redeem exchanges an authorization code (RFC 6749 §4.1.3).
func (st *state) redeem(now time.Time, o *Options, p presented, value, redirect, verifier string) (*issued, *oauthError) {
	c := st.codes[value]
	switch {
	case c == nil:
		return nil, invalidGrant("the authorization code is unknown")
	case c.client != p.client.ID:
		return nil, invalidGrant("the authorization code was issued to another client")
	case c.used:
		// "If an authorization code is used more than once, the authorization
		// server MUST deny the request and SHOULD revoke (when possible) all
		// tokens previously issued" (RFC 6749 §4.1.2).
		if c.grant != nil {
			st.end(c.grant, "the authorization code was used twice", o)
		}
		return nil, invalidGrant("the authorization code was used before")
	case !now.Before(c.expires):
		return nil, invalidGrant("the authorization code has expired")
	}
	c.used = true // also if what follows is wrong: a code has one chance
	switch {
	case c.redirect != redirect:
		return nil, invalidGrant("redirect_uri is not that of the authorization request")
	case c.challenge != s256(verifier):
		return nil, invalidGrant("code_verifier does not fit the code_challenge")
	case c.jkt != "" && (p.proof == nil || thumbprint(p.proof, o) != c.jkt):
		return nil, invalidGrant("the code is bound to another DPoP key (dpop_jkt)")
	}
	g := &grant{
		id: newID("ajg"), subject: c.subject, client: c.client, scope: c.scope,
		info: p.userAgent, protection: NoProtection,
	}
	if p.proof != nil {
		g.jkt, g.protection = p.proof.Thumbprint, InsecureKeyDPoP
		if p.secure {
			g.protection = SecureKeyDPoP
		}
	}
	c.grant = g
	out := &issued{access: st.issueAccess(now, o, g, g.scope), scope: g.scope}
	if o.YandexID || !o.RefreshTokensOff && hasScope(g.scope, offlineAccess) {
		out.refresh = st.issueRefresh(now, o, g)
	}
	return out, nil
}

// renew exchanges a refresh token (RFC 6749 §6).
func (st *state) renew(now time.Time, o *Options, p presented, value, scope string) (*issued, *oauthError) {
	t := st.refresh[value]
	if t == nil || t.state(now, o) == TokenUnknown {
		return nil, invalidGrant("the refresh token is unknown")
	}
	g := t.grant
	if g.client != p.client.ID {
		return nil, invalidGrant("the refresh token was issued to another client")
	}
	if g.jkt != "" && (p.proof == nil || p.proof.Thumbprint != g.jkt) {
		if o.WrongKeyRevokes && p.proof != nil {
			st.end(g, "its refresh token came with another DPoP key", o)
		}
		return nil, invalidGrant("the refresh token is bound to another DPoP key")
	}
	for s := range strings.FieldsSeq(scope) {
		if !hasScope(g.scope, s) {
			return nil, &oauthError{code: "invalid_scope", description: "the refresh token was not granted the scope"}
		}
	}
	out := &issued{scope: g.scope}
	switch t.state(now, o) {
	case TokenRevoked:
		return nil, invalidGrant("the refresh token was revoked")
	case TokenExpired:
		return nil, invalidGrant("the refresh token has expired")
	case TokenReplaced:
		if !t.grace(now, o) {
			if !o.ReuseKeepsGrant {
				st.end(g, "a replaced refresh token was used", o)
			}
			return nil, invalidGrant("the refresh token was replaced by a newer one")
		}
		t.graceUses++
		out.refresh = g.current
	case TokenCurrent:
		if o.Rotation == RotateAlways || o.Rotation == RotateNearEnd && !t.expires.IsZero() && t.expires.Sub(now) < o.RotateWithin {
			out.refresh = st.issueRefresh(now, o, g)
		}
	}
	t.lastUsed = now
	if scope != "" {
		out.scope = strings.Join(strings.Fields(scope), " ")
	}
	out.access = st.issueAccess(now, o, g, out.scope)
	return out, nil
}

// grace reports whether a replaced token is still forgiven, because its owner
// may never have received the newer one.
func (t *refreshToken) grace(now time.Time, o *Options) bool {
	return now.Before(t.replaced.Add(o.GracePeriod)) &&
		(o.GraceUses == 0 || t.graceUses < o.GraceUses) &&
		t.grant.current.state(now, o) == TokenCurrent
}

const offlineAccess = "offline_access"

func hasScope(scope, want string) bool {
	return slices.Contains(strings.Fields(scope), want)
}

// final reports whether nothing can make the token listed again.
func (t *refreshToken) final() bool {
	return t.grant.ended != "" || !t.replaced.IsZero()
}

// A subject has refresh tokens in ascending order of seq. Those that are not
// listed any more are left out now and then.
type subject struct {
	tokens  []*refreshToken
	compact int // do so when there are this many
}

func (s *subject) add(t *refreshToken) {
	if len(s.tokens) >= s.compact {
		s.tokens = slices.DeleteFunc(s.tokens, (*refreshToken).final)
		s.compact = max(64, 2*len(s.tokens))
	}
	s.tokens = append(s.tokens, t)
}
