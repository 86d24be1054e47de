package refreshtoken

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/ycauth/ycauth-go/internal/redact"
	"github.com/ycauth/ycauth-go/internal/strictjson"
)

// ErrGone means that the refresh token to revoke no longer exists, because it expired or
// was revoked before. An [*APIError] wraps it. [ErrNotFound] alone
// is not proof, because an operation, an account, or a method at a wrong endpoint can be
// missing too.
//
// A NOT_FOUND is about the refresh token only if it says so, in one of these ways:
//
//   - A google.rpc.ResourceInfo among the details has the type of a refresh token, and
//     no name other than the requested ID.
//   - The message says that a refresh token, or a token, is missing, expired or revoked,
//     in an English sentence that this package knows, such as "there is no such refresh
//     token" or "refresh token with ID aje1 not found".
//
// It is not if anything in it is about something else: the message, a description or a
// google.rpc.LocalizedMessage names another thing, such as an account, or something that
// cannot be done; one of these has a word with letters outside ASCII, or the
// LocalizedMessage any word that is in no sentence that this package knows, because only
// English is read; a ResourceInfo has another type, or another ID; the reason of a
// google.rpc.ErrorInfo says something else; there is a google.rpc.BadRequest,
// PreconditionFailure or QuotaFailure; or a detail cannot be read. Both transports ensure
// that a server sent the NOT_FOUND, as a google.rpc.Status with HTTP 404 or over gRPC.
//
// The response of the service for a refresh token that does not exist is undocumented,
// and the text of the live service is unverified. If it
// is none of the above, the error is an ErrNotFound without ErrGone; use
// [Client.List] to look for the token.
//
// Only the revocation of one token ([ByID], [ByToken]) can return ErrGone.
var ErrGone = errors.New("the refresh token is gone")

// A question is what a revocation asked for. It decides what a response is about.
// Everything that calls a refresh token gone or revoked comes from here.
//
// The zero question is that of [Client.Operation], which does not know the target.
type question struct {
	kind targetKind
	id   string // of the refresh token, for targetID
}

func (t Target) question() question { return question{t.kind, t.id} }

// one reports whether the question is about a single refresh token.
func (q question) one() bool { return q.kind == targetID || q.kind == targetToken }

// gone reports whether e, which ended the revocation, says that the refresh token
// does not exist. A program forgets the session of such a token, so there must be
// evidence: what is missing can be anything else. The transports make sure that a
// NOT_FOUND is a google.rpc.Status that a server sent.
func (q question) gone(e *APIError) bool {
	if !q.one() || e.Code != CodeNotFound {
		return false
	}
	// In the texts of e, it cannot be told from a credential that was taken out.
	if q.kind == targetID && strings.EqualFold(q.id, redact.Mark) {
		return false
	}
	// google.rpc.Code maps NOT_FOUND to 404. With any other status, something on the
	// way has changed the response. 0 is gRPC, or the end of an operation.
	if e.HTTPStatus != 0 && e.HTTPStatus != http.StatusNotFound {
		return false
	}
	message := q.read(e.Message)
	evidence := message.missing
	if message.against {
		return false
	}
	for _, detail := range e.Details {
		switch q.about(detail) {
		case aboutOther:
			return false
		case aboutToken:
			evidence = true
		}
	}
	return evidence
}

// A subject is what a detail of an error is about.
type subject int

const (
	aboutNothing subject = iota // that is known here
	aboutToken
	aboutOther
)

// about reads a google.rpc.ResourceInfo ("Describes the resource that is being
// accessed"), ErrorInfo or LocalizedMessage (google/rpc/error_details.proto), and knows
// the details that describe other failures. A ResourceInfo counts in
// either spelling of its members: a server that is not protojson's writes the names of
// the definition. What cannot be read, or leaves out what it is about, is about something
// else; a transport leaves the type alone of a message that it could not read.
func (q question) about(detail json.RawMessage) subject {
	d, ok := detailOf(detail)
	if !ok {
		return aboutOther
	}
	switch d.kind {
	case "google.rpc.ErrorInfo":
		if !d.has("reason", "domain") || !d.hasTexts("metadata") || d.texts["reason"] == "" {
			return aboutOther
		}
		if reason := (question{}).read(d.texts["reason"]); reason.against || reason.unknown { // no word of it is an ID
			return aboutOther
		}
		return aboutNothing // a reason alone is no evidence
	case "google.rpc.LocalizedMessage":
		if !d.has("locale", "message") {
			return aboutOther
		}
		// It can be in any language, so no word of it may be unknown.
		if text := q.read(d.texts["message"]); text.against || text.unknown {
			return aboutOther
		}
		return aboutNothing // the message of the status counts
	case "google.rpc.BadRequest", "google.rpc.PreconditionFailure", "google.rpc.QuotaFailure":
		return aboutOther // something else is wrong with the request
	case "google.rpc.ResourceInfo":
		if !d.has("resourceType", "resource_type", "resourceName", "resource_name", "owner", "description") ||
			q.read(d.texts["description"]).against {
			return aboutOther
		}
	default:
		return aboutNothing
	}
	for _, name := range []string{d.texts["resourceName"], d.texts["resource_name"]} {
		if q.kind == targetID && name != "" && name != q.id {
			return aboutOther
		}
	}
	found := aboutOther
	for _, kind := range []string{d.texts["resourceType"], d.texts["resource_type"]} {
		switch kind = strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(kind)); {
		case kind == "":
		case !strings.HasSuffix(kind, "refreshtoken"):
			return aboutOther
		default:
			found = aboutToken
		}
	}
	return found
}

// A detail is one of a google.rpc.Status. Its members have their exact names: encoding/json
// would take RESOURCETYPE for resourceType, also where there are both.
type detail struct {
	kind    string // the name of its message
	members map[string]json.RawMessage
	texts   map[string]string
}

// detailOf returns ok false for what is no object with a type.
func detailOf(data json.RawMessage) (d detail, ok bool) {
	members, err := strictjson.Object(data)
	d = detail{members: members, texts: map[string]string{}}
	if err != nil || !d.has("@type") || d.texts["@type"] == "" {
		return d, false
	}
	kind := d.texts["@type"]
	d.kind = kind[strings.LastIndexByte(kind, '/')+1:]
	return d, true
}

// has reads members into texts, and reports whether they are texts, as far as they are there.
func (d detail) has(names ...string) bool {
	for _, name := range names {
		var text string
		if raw := d.members[name]; raw != nil && json.Unmarshal(raw, &text) != nil {
			return false
		}
		d.texts[name] = text
	}
	return true
}

// hasTexts reports whether the values of the object by this name, if any, are texts.
func (d detail) hasTexts(name string) bool {
	var texts map[string]string
	return d.members[name] == nil || json.Unmarshal(d.members[name], &texts) == nil
}

// judged is the state of an operation, with what the question concludes from the IDs in it.
// That comes first: when credentials are taken out of them, two can become the same.
type judged struct {
	operation
	lists   bool // the response lists the refresh token
	foreign bool // the metadata names other refresh tokens only
}

// judge takes the results of a transport as they are.
func (q question) judge(o *operation, err error) (*judged, error) {
	if err != nil || o == nil {
		return nil, err
	}
	j := &judged{operation: *o}
	if o.Response != nil {
		switch ids := o.Response.RefreshTokenIDs; q.kind {
		case targetID:
			j.lists = slices.Contains(ids, q.id)
		case targetToken:
			j.lists = slices.ContainsFunc(ids, isSomeID)
		}
	}
	ids := o.Metadata.RefreshTokenIDs
	j.foreign = q.kind == targetID && len(ids) > 0 && !slices.Contains(ids, q.id)
	return j, nil
}

// isSomeID reports whether a text names anything.
func isSomeID(id string) bool {
	return strings.ContainsFunc(id, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) })
}

// unanswered says what is missing in an operation that succeeded; "" where
// nothing is. The response of a revocation lists the tokens that were revoked (Yandex
// Cloud IAM API, RevokeRefreshTokenResponse). One that does not list the token did
// not revoke it. An empty list is no exception: it is what a filter gets that
// matches nothing. The metadata names what was to be revoked, and proves nothing.
func (q question) unanswered(o *judged) string {
	switch {
	case o.Response.Foreign:
		return "the operation was no revocation of refresh tokens: its response is of another type"
	case q.one() && !o.lists:
		return "the operation succeeded, but its response does not list the refresh token as revoked: list the refresh tokens to see whether it is still there"
	}
	return ""
}
