// Package conformance tests this module with independent authorization servers: npm's
// certified oidc-provider, with DPoP nonces, PKCE and refresh token rotation all required,
// and that of atproto, npm's @atproto/oauth-provider, which also requires pushed
// authorization requests.
//
// server.mjs and atproto.mjs configure the servers and report their requests; the tests
// install them from the registry with "npm ci" into a temporary directory and start
// them on free loopback ports. The package contains only tests.
//
// The tests of the peer (peer_test.go) use only net/http, and go-jose for their
// proofs. They record the behavior of the server, to
// distinguish a failure of our client from a change of the server.
//
// The tests of the flows (flow*_test.go) run package oauth and dpop.Transport
// through the life of a session, and check the requests that the server received:
// their number, the response of each, and that every proof verifies. Each
// ends with a search for credentials in errors, events, log lines and pages.
//
// resource_test.go runs npm's clients oauth4webapi and dpop against dpop.ResourceServer.
//
// mcp_test.go runs the conformance suite of the Model Context Protocol for clients, npm's
// @modelcontextprotocol/conformance, with a client that uses package oauth
// (mcp_client_test.go). The test binary is that client when the suite starts it.
//
// The tests with a browser (browser_*_test.go) run a real headless Chromium
// through the login, including attacks. If YCAUTH_ARTIFACTS names a directory, they
// save a screenshot of each page there. yubikey_test.go signs everything with the key of
// a virtual YubiKey.
package conformance
