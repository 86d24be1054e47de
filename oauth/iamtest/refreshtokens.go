package iamtest

import (
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// The REST face of the API, as the documents "Identity and Access Management API,
// REST: RefreshToken.List" and "RefreshToken.Revoke" of Yandex Cloud describe it.

// apiCaller authenticates an API request, or answers it.
func (e *exchange) apiCaller() (iamapi.Caller, bool) {
	t, refused := e.caller()
	if refused != nil {
		e.apiError(&iamapi.Status{Code: iamapi.Unauthenticated, Message: refused.description})
		return iamapi.Caller{}, false
	}
	return iamapi.Caller{SubjectID: t.subject, ClientID: t.client}, true
}

// answer sends what an API method returned.
func answer[T any](e *exchange, v *T, err *iamapi.Status, write func(*T, []byte) []byte) {
	if err != nil {
		e.apiError(err)
		return
	}
	e.json(http.StatusOK, write(v, nil))
}

func (e *exchange) listRefreshTokens() {
	c, ok := e.apiCaller()
	if !ok {
		return
	}
	req, err := parseListQuery(e.r.URL.RawQuery)
	var resp *iamapi.ListResponse
	if err == nil {
		resp, err = e.s.list(e.now, e.opts, c, req)
	}
	if err == nil && e.repeatPage {
		switch {
		case req.PageToken != "":
			resp.NextPageToken = req.PageToken
		case resp.NextPageToken == "":
			resp.NextPageToken = req.pager(c).token(math.MaxInt64 - 1) // of an empty page
		}
	}
	answer(e, resp, err, appendPage)
}

// parseListQuery is stricter than the service: a parameter that it does not know
// is an error, so that a test notices a misspelt one.
func parseListQuery(query string) (req listRequest, err *iamapi.Status) {
	q, parseErr := url.ParseQuery(query)
	if parseErr != nil {
		return req, &iamapi.Status{Code: iamapi.InvalidArgument, Message: "the query is malformed"}
	}
	for name, values := range q {
		if len(values) > 1 {
			return req, invalid(cut(name, maxID), "is there twice")
		}
		switch v := values[0]; name {
		case "subjectId":
			req.SubjectID = v
		case "pageSize":
			n, parseErr := strconv.ParseInt(v, 10, 64)
			if parseErr != nil {
				return req, invalid("page_size", "is not an integer")
			}
			req.PageSize = n
		case "pageToken":
			req.PageToken = v
		case "filter":
			req.Filter = v
		default:
			return req, invalid(cut(name, maxID), "is not a parameter of List")
		}
	}
	return req, nil
}

func (e *exchange) revokeRefreshTokens() {
	c, ok := e.apiCaller()
	if !ok {
		return
	}
	req, err := parseRevokeBody(e.in)
	var op *iamapi.Operation
	if err == nil {
		op, err = e.s.revoke(e.now, e.opts, c, req, e.rec.IdempotencyKey)
	}
	e.operation(op, err)
}

// parseRevokeBody reads the JSON form of a RevokeRefreshTokenRequest. It does not
// ignore members that it does not know: a misspelt filter would revoke too much.
func parseRevokeBody(body []byte) (req revokeRequest, err *iamapi.Status) {
	members, err := objectOf("body", body)
	if err != nil {
		return req, err
	}
	for name, raw := range members {
		switch name {
		case "refreshTokenId":
			req.RefreshTokenID, err = jsonString(name, raw)
		case "refreshToken":
			req.RefreshToken, err = jsonString(name, raw)
		case "revokeFilter":
			req.RevokeFilter, err = parseRevokeFilter(raw)
		default:
			err = invalid(cut(name, maxID), "is not a member of the request")
		}
		if err != nil {
			return req, err
		}
	}
	return req, nil
}

func parseRevokeFilter(raw json.RawMessage) (*iamapi.RevokeFilter, *iamapi.Status) {
	members, err := objectOf("revoke_filter", raw)
	if err != nil {
		return nil, err
	}
	f := &iamapi.RevokeFilter{}
	for name, raw := range members {
		v, err := jsonString("revokeFilter."+cut(name, maxID), raw)
		if err != nil {
			return nil, err
		}
		switch name {
		case "clientId":
			f.ClientID = *v
		case "subjectId":
			f.SubjectID = *v
		case "clientInstanceInfo":
			f.ClientInstanceInfo = *v
		default:
			return nil, invalid("revoke_filter."+cut(name, maxID), "is not a member of the filter")
		}
	}
	return f, nil
}

func objectOf(field string, data []byte) (map[string]json.RawMessage, *iamapi.Status) {
	members, err := strictjson.Object(data)
	if err != nil {
		return nil, invalid(field, "is not a JSON object with distinct names")
	}
	return members, nil
}

func jsonString(field string, raw json.RawMessage) (*string, *iamapi.Status) {
	var v string
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, invalid(field, "is not a string")
	}
	return &v, nil
}

func (e *exchange) getOperation() {
	c, ok := e.apiCaller()
	if !ok {
		return
	}
	op, err := e.s.operation(e.now, c, strings.TrimPrefix(e.r.URL.Path, "/operations/"))
	e.operation(op, err)
}

func (e *exchange) operation(op *iamapi.Operation, err *iamapi.Status) {
	if err == nil && e.foreignOp {
		op = foreignOperation(e.now)
	}
	answer(e, op, err, appendOperation)
}

// endpoints answers without an access token, as the service does.
func (e *exchange) endpoints() {
	all := e.s.endpoints()
	if id, one := strings.CutPrefix(e.r.URL.Path, "/endpoints/"); one {
		for _, ep := range all {
			if ep.ID == id {
				e.json(http.StatusOK, appendEndpoint(ep, nil))
				return
			}
		}
		e.apiError(&iamapi.Status{Code: iamapi.NotFound, Message: "there is no such endpoint"})
		return
	}
	e.json(http.StatusOK, appendEndpoints(all))
}

func appendEndpoints(all []iamapi.Endpoint) []byte {
	w := object(nil)
	if len(all) > 0 {
		w.key("endpoints")
		for i, ep := range all {
			w.b = appendEndpoint(ep, append(w.b, "[,"[min(i, 1)]))
		}
		w.b = append(w.b, ']')
	}
	return w.end()
}

func appendEndpoint(ep iamapi.Endpoint, b []byte) []byte {
	w := object(b)
	w.string("id", ep.ID)
	w.string("address", ep.Address)
	return w.end()
}

func appendToken(t *iamapi.RefreshToken, b []byte) []byte {
	w := object(b)
	w.string("id", t.ID)
	w.string("clientInstanceInfo", t.ClientInstanceInfo)
	w.string("clientId", t.ClientID)
	w.string("subjectId", t.SubjectID)
	w.time("createdAt", t.CreatedAt)
	w.time("expiresAt", t.ExpiresAt)
	w.time("lastUsedAt", t.LastUsedAt)
	if t.ProtectionLevel != string(Unspecified) {
		w.string("protectionLevel", t.ProtectionLevel)
	}
	return w.end()
}

func appendPage(r *iamapi.ListResponse, b []byte) []byte {
	const each = 320 // bytes, in most cases
	w := object(slices.Grow(b, each*(len(r.RefreshTokens)+1)))
	if len(r.RefreshTokens) > 0 {
		w.key("refreshTokens")
		for i := range r.RefreshTokens {
			w.b = appendToken(&r.RefreshTokens[i], append(w.b, "[,"[min(i, 1)]))
		}
		w.b = append(w.b, ']')
	}
	w.string("nextPageToken", r.NextPageToken)
	return w.end()
}

func appendOperation(op *iamapi.Operation, b []byte) []byte {
	w := object(b)
	w.string("id", op.ID)
	w.string("description", op.Description)
	w.time("createdAt", op.CreatedAt)
	w.string("createdBy", op.CreatedBy)
	w.time("modifiedAt", op.ModifiedAt)
	w.bool("done", op.Done)
	w.key("metadata")
	m := object(w.b)
	m.string("@type", "type.googleapis.com/yandex.cloud.iam.v1.RevokeRefreshTokenMetadata")
	m.string("subjectId", op.Metadata.SubjectID)
	m.strings("refreshTokenIds", op.Metadata.RefreshTokenIDs)
	w.b = m.end()
	if op.Error != nil {
		w.key("error")
		w.b = appendStatus(op.Error, w.b, "")
	}
	if op.Response != nil {
		w.key("response")
		r := object(w.b)
		r.string("@type", "type.googleapis.com/yandex.cloud.iam.v1.RevokeRefreshTokenResponse")
		r.strings("refreshTokenIds", op.Response.RefreshTokenIDs)
		w.b = r.end()
	}
	return w.end()
}
