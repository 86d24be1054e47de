package iamtest

import (
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/ycauth/ycauth-go/oauth"
)

// authenticate finds out which client made a token request, and whether it did
// so in its registered way (RFC 6749 §2.3.1, §3.2.1).
func (e *exchange) authenticate() (Client, *oauthError) {
	id, secret, method := e.form.Get("client_id"), e.form.Get("client_secret"), oauth.AuthNone
	if secret != "" {
		method = oauth.AuthClientSecretPost
	}
	headers := e.r.Header.Values("Authorization")
	if len(headers) > 0 {
		if len(headers) > 1 {
			return Client{}, invalidRequest("more than one Authorization header")
		}
		user, password, err := e.basic(headers[0])
		if err != nil {
			return Client{}, err
		}
		// "The client MUST NOT use more than one authentication method in each
		// request" (§2.3), but with Yandex OAuth "the client_id and client_secret
		// parameters in the request body are ignored".
		if !e.opts.YandexID && (secret != "" || id != "" && id != user && id != unescape(user)) {
			return Client{}, invalidRequest("client credentials in the body and in the Authorization header")
		}
		id, secret, method = user, password, oauth.AuthClientSecretBasicPlain
		if c, ok := e.opts.client(unescape(user)); ok && c.AuthMethod == oauth.AuthClientSecretBasic {
			plain, err := url.QueryUnescape(password)
			if err != nil {
				return Client{}, e.invalidClient("the client secret is not encoded as RFC 6749, section 2.3.1 says")
			}
			id, secret, method = c.ID, plain, oauth.AuthClientSecretBasic
		}
	}
	e.rec.ClientID = id
	if id == "" {
		return Client{}, invalidRequest("client_id is missing")
	}
	c, ok := e.opts.client(id)
	switch {
	case !ok:
		return Client{}, e.invalidClient("the client is not registered")
	case method != c.AuthMethod && (!e.opts.YandexID || method != oauth.AuthClientSecretPost):
		return Client{}, e.invalidClient("the client is registered with another authentication method: " + string(c.AuthMethod))
	case subtle.ConstantTimeCompare([]byte(secret), []byte(c.Secret.Reveal())) != 1:
		return Client{}, e.invalidClient("the client secret is wrong")
	}
	return c, nil
}

// basic reads a Basic header as far as all servers agree.
func (e *exchange) basic(header string) (user, password string, err *oauthError) {
	scheme, credential, ok := cutScheme(header)
	if !strings.EqualFold(scheme, "Basic") {
		if e.opts.YandexID {
			return "", "", &oauthError{code: "Basic auth required", description: "the scheme of the Authorization header is not Basic"}
		}
		return "", "", e.invalidClient("the scheme of the Authorization header is not Basic")
	}
	malformed := invalidRequest("the Authorization header is not the base64 of id:secret")
	if e.opts.YandexID {
		malformed.code = "Malformed Authorization header"
	}
	decoded, decodeErr := base64.StdEncoding.DecodeString(credential)
	if !ok || decodeErr != nil {
		return "", "", malformed
	}
	user, password, ok = strings.Cut(string(decoded), ":")
	if !ok {
		return "", "", malformed
	}
	return user, password, nil
}

// unescape takes the encoding of RFC 6749 §2.3.1 off an identifier. One that is not
// encoded in this way stays as it is.
func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// invalidClient is 401 with a challenge if the client tried the header
// (RFC 6749 §5.2); Yandex OAuth answers 400.
func (e *exchange) invalidClient(description string) *oauthError {
	err := &oauthError{code: "invalid_client", description: description}
	if !e.opts.YandexID {
		err.status = http.StatusUnauthorized
		if e.r.Header.Get("Authorization") != "" {
			e.header.Set("WWW-Authenticate", `Basic realm="iamtest"`)
		}
	}
	return err
}
