package iamtest

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// echoHeaders are the headers that FaultEcho fills with a credential. Date and
// Content-Length are left alone, because net/http would not let the rest through
// without them.
var echoHeaders = []string{
	"DPoP-Nonce", "Location", "Retry-After", "Server", "Via", "Warning", "X-Request-Id", "X-Server-Trace-Id",
}

// credential is what the request carried that must not be shown, the most
// precious one first. It is never "".
func (e *exchange) credential() string {
	for _, name := range []string{"refresh_token", "code", "client_secret"} {
		if v := e.form.Get(name); v != "" {
			return v
		}
	}
	if req, err := parseRevokeBody(e.in); err == nil && req.RefreshToken != nil {
		return *req.RefreshToken
	}
	if _, token, ok := cutScheme(e.r.Header.Get("Authorization")); ok {
		return token
	}
	return "the-request-had-no-credential"
}

// echo puts the credential of the request into every header, and every string of
// the body. status 0 keeps the right response's.
func (e *exchange) echo(status int) {
	secret := e.credential()
	if status != 0 {
		e.replace(status, "", "")
		e.body = echoError(secret)
	} else if v := any(nil); json.Unmarshal(e.body, &v) == nil {
		e.body, _ = json.Marshal(echoStrings(v, secret)) //nolint:errchkjson // what was decoded can be encoded
	}
	for _, name := range echoHeaders {
		e.header.Set(name, secret)
	}
	e.header.Set("Location", "https://"+secret+".invalid/"+secret)
	e.header.Set("WWW-Authenticate", `DPoP error="`+secret+`", error_description="`+secret+`"`)
	e.header.Set("Content-Type", "application/json; profile="+secret)
}

// echoError is an error of RFC 6749 §5.2 and a google.rpc.Status at once.
func echoError(secret string) []byte {
	detail := map[string]any{
		"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": secret, "servingData": secret,
	}
	body, _ := json.Marshal(map[string]any{ //nolint:errchkjson // strings and numbers
		"error": secret, "error_description": "unknown: " + secret, "error_uri": "https://" + secret + ".invalid/",
		"code": iamapi.InvalidArgument, "message": "unknown: " + secret, "details": []any{detail},
	})
	return body
}

// echoStrings replaces every string of a JSON value but types and times, so that a
// client reads on.
func echoStrings(v any, secret string) any {
	switch v := v.(type) {
	case string:
		if _, err := time.Parse(time.RFC3339, v); err == nil || strings.HasPrefix(v, "type.googleapis.com/") {
			return v
		}
		return secret
	case []any:
		for i := range v {
			v[i] = echoStrings(v[i], secret)
		}
	case map[string]any:
		for name := range v {
			v[name] = echoStrings(v[name], secret)
		}
	}
	return v
}
