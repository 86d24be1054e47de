package iamtest

import "time"

// A Seed is a refresh token that is added to the server without a login.
type Seed struct {
	ID                 string
	ClientInstanceInfo string
	ClientID           string
	SubjectID          string
	CreatedAt          time.Time
	ExpiresAt          time.Time
	LastUsedAt         time.Time // zero if it was never used
	ProtectionLevel    ProtectionLevel

	// Scope of its access tokens.
	Scope string

	// KeyThumbprint is the SHA-256 JWK thumbprint of the key that the token is
	// bound to. "": it is not bound.
	KeyThumbprint string
}

// Seed adds n refresh tokens to the server and returns their values. edit, if it is
// not nil, is called for each of them with its index, to change the defaults: a new
// ID, the server's client and subject, CreatedAt now, ExpiresAt Options.RefreshLife
// later, the scope "openid offline_access". If edit changes only CreatedAt, ExpiresAt
// follows it; a ProtectionLevel of "" follows the KeyThumbprint. Times that edit sets
// to zero stay zero: the API omits them, and a token without ExpiresAt does not
// expire.
//
// It is quick: 100 000 tokens take less than a second.
func (s *Server) Seed(n int, edit func(i int, t *Seed)) []string {
	o, now := s.options(), s.clock.Now()
	tokens := make([]*refreshToken, n)
	values := make([]string, n)
	for i := range tokens {
		seed := Seed{
			ID: newID("ajr"), ClientID: o.ClientID, SubjectID: o.Subject, CreatedAt: now, ExpiresAt: now.Add(o.RefreshLife),
			Scope: "openid " + offlineAccess,
		}
		if edit != nil {
			edit(i, &seed)
		}
		if seed.ExpiresAt.Equal(now.Add(o.RefreshLife)) && !seed.CreatedAt.IsZero() {
			seed.ExpiresAt = seed.CreatedAt.Add(o.RefreshLife)
		}
		tokens[i] = seed.token(o)
		values[i] = tokens[i].value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tokens {
		s.state.add(t)
	}
	s.secret(values...)
	return values
}

func (seed *Seed) token(o *Options) *refreshToken {
	if seed.ProtectionLevel == "" {
		seed.ProtectionLevel = NoProtection
		if seed.KeyThumbprint != "" {
			seed.ProtectionLevel = InsecureKeyDPoP
		}
	}
	return &refreshToken{
		grant: &grant{
			id: newID("ajg"), subject: seed.SubjectID, client: seed.ClientID, scope: seed.Scope,
			info: seed.ClientInstanceInfo, jkt: seed.KeyThumbprint, protection: seed.ProtectionLevel,
		},
		value: newRefreshToken(o), id: seed.ID,
		created: seed.CreatedAt, expires: seed.ExpiresAt, lastUsed: seed.LastUsedAt,
	}
}

// seed is the Seed that would have made the token.
func (t *refreshToken) seed() Seed {
	return Seed{
		ID: t.id, ClientInstanceInfo: t.grant.info, ClientID: t.grant.client, SubjectID: t.grant.subject,
		CreatedAt: t.created, ExpiresAt: t.expires, LastUsedAt: t.lastUsed, ProtectionLevel: t.grant.protection,
		Scope: t.grant.scope, KeyThumbprint: t.grant.jkt,
	}
}

// IssueAccessToken returns an access token for the subject without a login, for
// tests of the API alone. subject "" is Options.Subject. With the SHA-256
// thumbprint of a key the token is of type DPoP, else Bearer.
func (s *Server) IssueAccessToken(subject, keyThumbprint string) string {
	o := s.options()
	if subject == "" {
		subject = o.Subject
	}
	t := &accessToken{
		value: newAccessToken(o), subject: subject, client: o.ClientID, scope: "openid",
		jkt: keyThumbprint, expires: s.clock.Now().Add(o.AccessLife),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.access[t.value] = t
	s.state.sweep(s.clock.Now(), o)
	s.secret(t.value)
	return t.value
}

// A TokenInfo is the server's information about a refresh token.
type TokenInfo struct {
	Seed
	State      TokenState
	GrantID    string
	GrantEnded string // why the grant is over; "" if it is not
}

// Introspect returns the server's information about a refresh token. A
// TokenInfo whose State is [TokenUnknown] is otherwise empty.
func (s *Server) Introspect(token string) TokenInfo {
	o, now := s.options(), s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(now)
	t := s.state.refresh[token]
	if t == nil || t.state(now, o) == TokenUnknown {
		return TokenInfo{State: TokenUnknown}
	}
	return TokenInfo{
		Seed: t.seed(), State: t.state(now, o), GrantID: t.grant.id, GrantEnded: t.grant.ended,
	}
}

// LiveGrants returns how many grants have a valid refresh token.
func (s *Server) LiveGrants() int {
	o, now := s.options(), s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(now)
	n := 0
	for _, g := range s.state.grants {
		if g.current.state(now, o) == TokenCurrent {
			n++
		}
	}
	return n
}

// RevokeRefreshToken ends the grant of a refresh token, as an administrator could at
// any time. It reports whether the token is known.
func (s *Server) RevokeRefreshToken(token string) bool {
	o := s.options()
	return s.withRefresh(token, func(t *refreshToken) { s.state.end(t.grant, "revoked by the test", o) })
}

func (s *Server) withRefresh(value string, fn func(*refreshToken)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.state.refresh[value]
	if t != nil {
		fn(t)
	}
	return t != nil
}

// AccessTokenExpiry returns when an access token expires. It is zero if the token is
// unknown, revoked or expired.
func (s *Server) AccessTokenExpiry(token string) time.Time {
	t, problem := s.lookupAccess(s.clock.Now(), token)
	if problem != "" {
		return time.Time{}
	}
	return t.expires
}

// RevokeAccessToken makes resources reject an access token before it expires. It
// reports whether the token is known.
func (s *Server) RevokeAccessToken(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.state.access[token]
	if t != nil {
		t.revoked = true
	}
	return t != nil
}
