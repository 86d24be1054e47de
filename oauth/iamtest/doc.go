// Package iamtest provides an IAM in the program's own process: an authorization
// server with DPoP and rotating refresh tokens, and the RefreshToken API that lists
// and revokes them, like those of Yandex Cloud. It is for tests and demonstrations,
// and can fail on demand.
//
// It listens on 127.0.0.1, in plain http unless [Options].TLS is set,
// and keeps everything in memory. Do not use it to protect anything of value, because
// it approves every login.
//
// # Starting it
//
// In a test:
//
//	srv := iamtest.Start(t, iamtest.Options{Nonces: iamtest.NoncesRequired})
//
// and in a program:
//
//	srv, err := iamtest.New(iamtest.Options{})
//	...
//	defer srv.Close()
//
// [Server.OAuthConfig] returns everything that package oauth needs, including the
// clock, and [Server.OpenURL] simulates the browser of a user who agrees to every login:
//
//	client, err := oauth.New(srv.OAuthConfig(prover))
//	...
//	session, err := client.Login(ctx, oauth.LoginOptions{OpenURL: srv.OpenURL})
//
// [Server.IAMEndpoint] and [Server.OperationEndpoint] are for package
// refreshtoken.
//
// The command iamserver runs the same server, to try programs by hand:
//
//	go run github.com/ycauth/ycauth-go/oauth/iamtest/iamserver@latest
//
// # Endpoints
//
//	GET  /oauth/authorize             login: redirects at once, with a code
//	POST /oauth/token                 authorization_code and refresh_token
//	GET  /api/whoami                  a resource, Bearer or DPoP
//	GET  /iam/v1/refreshTokens        RefreshToken.List
//	POST /iam/v1/refreshTokens:revoke RefreshToken.Revoke
//	GET  /operations/{id}             Operation.Get
//	GET  /endpoints                   ApiEndpoint.List, without a token
//
// Anything else returns 404 or 405 in plain text, like a web server without an API.
//
// The API follows "Identity and Access Management API, REST: RefreshToken" of Yandex
// Cloud, and its responses are byte for byte those of protojson for the official
// messages. Limits are those of the protobuf definitions, which take precedence over
// the documents.
//
// # Rules
//
// [Options] select among the behaviors of real servers: nonces off, optional or
// required; refresh tokens replaced never, always or near the end of their life;
// the reaction to the reuse of a replaced one, and to a proof by the wrong key;
// access tokens of type Bearer or DPoP. [Server.Configure] changes them
// while the server runs.
//
// # Time
//
// The server's clock is [Options].Now plus the time that [Server.Advance] added. It
// determines expiry, the Date header and the check of a proof's iat. Clients created with
// [Server.Provider] or [Server.OAuthConfig] share it automatically, so no test mixes
// two clocks by accident. To test clocks that differ, set Config.Clock; [ClockSkew]
// makes the server's clock wrong. Use [Server.Now] for everything else that needs the
// time, such as stores and a dpop.Transport of your own.
//
// # Faults
//
// [Server.Inject] makes the next requests to an endpoint fail:
//
//	srv.Inject(iamtest.EndpointToken, iamtest.LostAnswer(), 1)
//
// uses the grant of the next token request and closes the connection without a
// response. [AllFaults] is for tests that iterate over all of them. Inject returns an
// error for a fault that cannot happen, and a fault that has not happened by the end
// of a test fails the test.
//
// # What is assumed
//
// Yandex Cloud does not document everything that a client may encounter. The
// server assumes the following, which [Options] can change: a replaced refresh token
// cannot be used again; an attestation is sent as the x5c header of
// a proof; the User-Agent of the login becomes the clientInstanceInfo; and
// dpop_jkt uses SHA-512. A refresh token that replaces another
// has a new id.
//
// # Inspection
//
// [Server.Requests] and [Server.Count] report the requests of clients,
// [Server.Introspect] the state of a refresh token, and [Server.Secrets] every
// credential that must not appear in a log. [Server.Quiet] waits until the requests of
// a killed client have been handled.
//
// The server forgets expired tokens, and all but the newest thousand tokens of a
// grant, so that a test can renew all day.
//
// [Server.RoundTripper] reaches the server without a network, for tests with
// testing/synctest.
package iamtest
