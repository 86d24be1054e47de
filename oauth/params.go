package oauth

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Parameters that a Provider must not add, because the package sets them. Those of the
// client's authentication are part of pushed authorization requests as well.
var (
	clientParams = []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"}
	authParams   = append([]string{
		"response_type", "redirect_uri", "state", "scope", "resource", "code_challenge", "code_challenge_method", "dpop_jkt",
		"request", "request_uri",
	}, clientParams...)
	tokenParams = append([]string{
		"grant_type", "code", "code_verifier", "redirect_uri", "refresh_token", "device_code", "resource",
	}, clientParams...)
)

// checkParams looks at the resources, and at the parameters that the provider adds.
func (c *Client) checkParams(wrong func(field, format string, args ...any)) {
	instead := map[string]string{"scope": ": use Config.Scopes", "resource": ": use Config.Resources"}
	for _, set := range []struct {
		field    string
		params   url.Values
		reserved []string
	}{
		{"Provider.AuthParams", c.cfg.Provider.AuthParams, authParams},
		{"Provider.TokenParams", c.cfg.Provider.TokenParams, tokenParams},
	} {
		for _, name := range slices.Sorted(maps.Keys(set.params)) {
			if slices.Contains(set.reserved, name) {
				wrong(set.field, "has %s, which the package sets itself%s", name, instead[name])
			}
		}
	}
	for _, resource := range c.cfg.Resources {
		// "Its value MUST be an absolute URI […]. The URI MUST NOT include a fragment
		// component" (RFC 8707 §2).
		if u, err := url.Parse(resource); err != nil || !u.IsAbs() || strings.Contains(resource, "#") {
			wrong("Resources", "has an element that is not an absolute URI without a fragment (RFC 8707 §2)")
			break
		}
	}
}

// tokenRequest adds to the form of a token request what every one of them has.
func (c *Client) tokenRequest(form url.Values) url.Values {
	if len(c.cfg.Provider.TokenParams) == 0 && len(c.cfg.Resources) == 0 {
		return form
	}
	form = cloneValues(form)
	maps.Copy(form, c.cfg.Provider.TokenParams)
	if len(c.cfg.Resources) > 0 {
		form["resource"] = c.cfg.Resources // "multiple resource parameters MAY be used" (RFC 8707 §2)
	}
	return form
}
