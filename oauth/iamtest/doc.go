// Package iamtest is an IAM in the program's own process: an authorization server
// with DPoP and rotating refresh tokens, and the RefreshToken API that lists and
// revokes them, as Yandex Cloud has them. It is for tests and demonstrations, and
// knows how to fail on demand.
//
// It listens on 127.0.0.1, in plain http unless [Options] say TLS,
// and keeps everything in memory. It must not guard anything of value, because it
// logs in anyone who asks.
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
// [Server.OAuthConfig] has everything that package oauth needs, the clock included,
// and [Server.OpenURL] is the browser of a user who agrees to every login:
//
//	client, err := oauth.New(srv.OAuthConfig(prover))
//	...
//	session, err := client.Login(ctx, oauth.LoginOptions{OpenURL: srv.OpenURL})
//
// [Server.IAMEndpoint] and [Server.OperationEndpoint] are for package
// refreshtoken.
//
// The command iamserver is the same server for any program, to try by hand:
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
// Anything else is 404 or 405 in plain text, as of a web server that is no API.
//
// The API follows "Identity and Access Management API, REST: RefreshToken" of
// Yandex Cloud, and answers the bytes that protojson makes of the official
// messages. Limits are those of the protobuf definitions. Where the documents and
// the definitions differ, the definitions win.
//
// # Rules
//
// [Options] choose among the habits of real servers: nonces off, optional or
// required; refresh tokens replaced never, always or near the end of their life;
// what follows when a replaced one is used again; what a proof by the wrong key
// leads to; access tokens of type Bearer or DPoP. [Server.Configure] changes them
// while the server runs.
//
// # Time
//
// The server's clock is [Options].Now plus what [Server.Advance] added. Whatever
// expires does so by it, and so do the Date header and the check of a proof's
// iat. Clients made with [Server.Provider] or [Server.OAuthConfig] share it without
// being told, so no test mixes two clocks by accident; a Config.Clock of their own
// shows what clocks that differ lead to, and [ClockSkew] makes the server's clock
// wrong. Whatever else tells the time gets [Server.Now]: stores, and a dpop.Transport
// made by hand.
//
// # Faults
//
// [Server.Inject] makes the next requests of an endpoint go wrong:
//
//	srv.Inject(iamtest.EndpointToken, iamtest.LostAnswer(), 1)
//
// spends the grant of the next token request and closes the connection without an
// answer. [AllFaults] is for tests that go through all of them. A fault that cannot
// happen is an error of Inject, and one that has not happened by the end of a test
// fails the test.
//
// # What is assumed
//
// Yandex Cloud does not document everything that a client can run into. The
// server assumes, and lets [Options] change, that a refresh token which was
// replaced cannot be used again; that an attestation travels as the x5c header of
// a proof; that the User-Agent of the login becomes the clientInstanceInfo; and
// that dpop_jkt is made with SHA-512. A refresh token that takes another's place
// has an id of its own.
//
// # Looking inside
//
// [Server.Requests] and [Server.Count] tell what clients did,
// [Server.Introspect] what became of a refresh token, and [Server.Secrets] every
// credential that must not show up in a log. [Server.Quiet] waits until what a
// killed client sent has been handled.
//
// The server forgets what has expired, and of a grant all but the newest thousand
// tokens, so that a test can renew all day.
//
// [Server.RoundTripper] reaches the server without a network, for tests whose
// time testing/synctest makes.
package iamtest
