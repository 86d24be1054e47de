package iamtest

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// The limits that the protobuf definitions of the API state, in characters and
// items (yandex/cloud/iam/v1/refresh_token_service.proto).
const (
	maxID           = 50   // subject_id, client_id, refresh_token_id
	maxPageSize     = 1000 // page_size
	defaultPageSize = 100
	maxPageToken    = 2000
	maxFilter       = 1000
	maxTokenLen     = 1000 // refresh_token
	maxInstanceInfo = 1000 // client_instance_info
)

// Roles that let a subject see or revoke the tokens of others: Options.Roles.
const (
	roleViewer       = "organization-manager.viewer"                // list
	roleAdmin        = "organization-manager.admin"                 // list
	roleTokenViewer  = "iam.userAccounts.refreshTokenViewer"        // list
	roleUserAdmin    = "organization-manager.federations.userAdmin" // revoke
	roleTokenRevoker = "iam.userAccounts.refreshTokenRevoker"       // revoke
)

// A ProtectionLevel is how a refresh token is protected, by the name of its value in
// yandex.cloud.iam.v1.RefreshToken.ProtectionLevel. [Server.Seed] accepts other names
// too, as a newer API might have them.
type ProtectionLevel string

// The protection levels.
const (
	Unspecified     ProtectionLevel = "PROTECTION_LEVEL_UNSPECIFIED"
	NoProtection    ProtectionLevel = "NO_PROTECTION"     // not bound to a key
	InsecureKeyDPoP ProtectionLevel = "INSECURE_KEY_DPOP" // bound to a key
	SecureKeyDPoP   ProtectionLevel = "SECURE_KEY_DPOP"   // bound to a key that its device attests
)

func (l ProtectionLevel) known() bool {
	return l == Unspecified || l == NoProtection || l == InsecureKeyDPoP || l == SecureKeyDPoP
}

func (t *refreshToken) view() iamapi.RefreshToken {
	return iamapi.RefreshToken{
		ID: t.id, ClientInstanceInfo: t.grant.info, ClientID: t.grant.client, SubjectID: t.grant.subject,
		CreatedAt: t.created, ExpiresAt: t.expires, LastUsedAt: t.lastUsed, ProtectionLevel: string(t.grant.protection),
	}
}

// tooLong checks the length of a field in characters.
func tooLong(field, v string, limit int) *iamapi.Status {
	if !utf8.ValidString(v) {
		return invalid(field, "is not UTF-8")
	}
	if n := utf8.RuneCountInString(v); n > limit {
		return invalid(field, "has %d characters, and may have %d", n, limit)
	}
	return nil
}

// firstError is the first that is not nil.
func firstError(errs ...*iamapi.Status) *iamapi.Status {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A listRequest is one that may be wrong.
type listRequest iamapi.ListRequest

func (r *listRequest) check() *iamapi.Status {
	if r.PageSize < 0 || r.PageSize > maxPageSize {
		return invalid("page_size", "is %d, and may be 0 to %d", r.PageSize, maxPageSize)
	}
	return firstError(
		tooLong("subject_id", r.SubjectID, maxID),
		tooLong("page_token", r.PageToken, maxPageToken),
		tooLong("filter", r.Filter, maxFilter),
	)
}

// subject whose tokens are listed: the caller's, if none is named.
func (r *listRequest) subject(c iamapi.Caller) string {
	if r.SubjectID != "" {
		return r.SubjectID
	}
	return c.SubjectID
}

func (r *listRequest) pager(c iamapi.Caller) pager {
	return pager{query: r.subject(c) + "\x00" + r.Filter}
}

func (s *Server) list(now time.Time, o *Options, c iamapi.Caller, req listRequest) (*iamapi.ListResponse, *iamapi.Status) {
	if err := req.check(); err != nil {
		return nil, err
	}
	f, err := parseFilter(req.Filter)
	if err != nil {
		return nil, err
	}
	subject := req.subject(c)
	if err := o.permitted(c, subject, "list", roleViewer, roleAdmin, roleTokenViewer); err != nil {
		return nil, err
	}
	pages := req.pager(c)
	after, err := pages.parse(req.PageToken)
	if err != nil {
		return nil, err
	}
	size := int(req.PageSize)
	if size == 0 {
		size = defaultPageSize
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(now)
	tokens := s.state.of(subject)
	first, _ := slices.BinarySearchFunc(tokens, after+1, func(t *refreshToken, seq int64) int { return cmp.Compare(t.seq, seq) })
	resp := &iamapi.ListResponse{RefreshTokens: make([]iamapi.RefreshToken, 0, min(size, len(tokens)-first))}
	room := size // for tokens, or with SparsePages for those looked at
	for _, t := range tokens[first:] {
		matches := t.listed(now, o) && f.match(t)
		if room == 0 && (matches || o.SparsePages) {
			resp.NextPageToken = pages.token(after)
			break
		}
		if matches {
			resp.RefreshTokens = append(resp.RefreshTokens, t.view())
		}
		if matches || o.SparsePages {
			room--
			after = t.seq
		}
	}
	return resp, nil
}

// permitted reports whether the caller may do something with the tokens of a
// subject.
func (o *Options) permitted(c iamapi.Caller, subject, verb string, roles ...string) *iamapi.Status {
	if subject == c.SubjectID {
		return nil
	}
	for _, r := range o.Roles[c.SubjectID] {
		if slices.Contains(roles, r) {
			return nil
		}
	}
	return &iamapi.Status{Code: iamapi.PermissionDenied, Message: "a role is required to " + verb + " the refresh tokens of another subject"}
}

// A pager makes page tokens, which are good for one query only.
type pager struct{ query string }

func (p pager) mark() string {
	sum := sha256.Sum256([]byte(p.query))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// token of the page that begins after the refresh token with number seq.
func (p pager) token(seq int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(seq, 10) + "." + p.mark()))
}

func (p pager) parse(token string) (seq int64, err *iamapi.Status) {
	if token == "" {
		return 0, nil
	}
	raw, decodeErr := base64.RawURLEncoding.DecodeString(token)
	number, mark, ok := strings.Cut(string(raw), ".")
	seq, parseErr := strconv.ParseInt(number, 10, 64)
	switch {
	case errors.Join(decodeErr, parseErr) != nil || !ok || seq < 0:
		return 0, invalid("page_token", "is not one that the server made")
	case mark != p.mark():
		return 0, invalid("page_token", "is of another subject_id or filter")
	}
	return seq, nil
}

// endpoints says where the parts of the API are.
func (s *Server) endpoints() []iamapi.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.api)
}
