// Package conformance holds the tests against an authorization server that we
// did not write: npm's certified oidc-provider, with DPoP nonces, PKCE and
// refresh token rotation all required.
//
// server.mjs configures that server and says what it received; the tests
// install it from the registry with "npm ci" into a temporary folder and start
// it on a free loopback port. Nothing but tests is in this package.
//
// The tests of the peer (peer_test.go) speak net/http and make their proofs
// with go-jose alone. They pin down what a client has to live with, so a
// failing test of our client can be told from a server that has changed.
//
// The tests of the flows (flow*_test.go) run package oauth and dpop.Transport
// through the life of a session, and judge them by what the server received:
// how many requests, each with which answer, and that every proof verifies. Each
// ends with a search for credentials in what errors, events, log lines and pages
// have said.
//
// The tests with a browser (browser_*_test.go) let a real headless Chromium go
// through the login, attacks included; with YCAUTH_ARTIFACTS naming a folder they
// keep a screenshot of each page. yubikey_test.go has the key of a virtual
// YubiKey sign it all.
package conformance
