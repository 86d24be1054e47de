package oauth

import (
	"context"
	"errors"
	"net/url"

	"github.com/ycauth/ycauth-go/internal/strictjson"
)

// push makes the pushed authorization request of RFC 9126 §2.1. A proof binds the code to
// the key as dpop_jkt does, and is sent beside it (RFC 9449 §10.1): there are servers that
// expect the one or the other.
func (c *Client) push(ctx context.Context, request url.Values) (requestURI Secret, _ error) {
	parse := func(body []byte) error {
		m, err := strictjson.Object(body)
		if err != nil {
			return err
		}
		uri, err := stringMember(m, "request_uri")
		if err == nil && !isVSChars(uri) {
			err = errors.New("request_uri is missing or malformed")
		}
		requestURI = Secret(uri)
		return err
	}
	_, err := c.call(ctx, endpoint{url: c.pushedAuthURL, field: "Provider.PushedAuthURL", proved: true, parse: parse}, request)
	if err != nil {
		return "", err
	}
	return requestURI, nil
}
