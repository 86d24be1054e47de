// Package refreshtoken lists and revokes the refresh tokens of Yandex Cloud
// accounts (Yandex Cloud IAM API, RefreshToken.List and RefreshToken.Revoke).
//
// [NewClient] creates a [Client] from an http.Client that authenticates with
// an IAM token, such as that of package github.com/ycauth/ycauth-go/oauth:
//
//	client := refreshtoken.NewClient(oauthClient.HTTPClient())
//
// The http.Client of oauth2.NewClient in golang.org/x/oauth2 works as well, but keeps
// sending a revoked token until it expires, for up to 12 hours, and does not cancel a
// token request with ctx.
//
// This package handles token metadata only. Package oauth obtains and uses tokens.
//
// # Listing
//
// [Client.List] iterates over all tokens that the options select, and
// [Client.Pages] over their pages:
//
//	for token, err := range client.List(ctx, refreshtoken.ListOptions{}) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(token.ID, token.ClientID, token.LastUsedAt)
//	}
//
// When the loop reaches the middle of a page, the next page is fetched; see [ListOptions]
// NoLookahead. Breaking out of the loop leaks nothing. A page without tokens does not
// end the listing. If the server repeats a page token, the listing ends with
// [ErrPageTokenRepeated]; after 100 pages in a row without tokens, it ends with a
// [*ResponseError].
//
// Set SubjectID of [ListOptions] to list the tokens of another account. The
// caller then needs one of the roles organization-manager.viewer,
// organization-manager.admin and iam.userAccounts.refreshTokenViewer.
//
// With a [Filter], the server selects tokens by client, application instance and
// [ProtectionLevel].
//
// # Revoking
//
// [Client.Revoke] takes a [Target], which cannot be empty by accident: [ByID],
// [ByToken], [ByFilter] with at least one condition, or [AllMine]. The server
// revokes asynchronously; [RevokeOperation.Wait] waits for it to finish:
//
//	op, err := client.Revoke(ctx, refreshtoken.ByID(id))
//	if err != nil {
//		return err
//	}
//	result, err := op.Wait(ctx)
//
// Another process can wait for the same operation with [Client.Operation]. To
// revoke the tokens of another account, the caller needs one of the roles
// organization-manager.federations.userAdmin and
// iam.userAccounts.refreshTokenRevoker.
//
// A token counts as revoked only if the response lists it. An error that wraps
// [ErrGone] means that the service no longer has the token, so a program
// can delete it:
//
//	if err != nil && !errors.Is(err, refreshtoken.ErrGone) {
//		return err // the token may still be there
//	}
//
// No other 404 means that: not the page of a proxy, nor a NOT_FOUND about the
// operation or the account, nor one that does not name the missing resource.
//
// # Housekeeping
//
// [Client.RevokeEach] revokes tokens by their IDs, several at a time, and reports the
// outcome of each. Review them first, for example in a dry run:
//
//	month := time.Now().AddDate(0, -1, 0)
//	unprotected := refreshtoken.Filter{ProtectionLevels: []refreshtoken.ProtectionLevel{refreshtoken.NoProtection}}
//	var ids []string
//	for token, err := range client.List(ctx, refreshtoken.ListOptions{SubjectID: subject, Filter: unprotected}) {
//		if err != nil {
//			return err
//		}
//		if token.NotUsedSince(month) {
//			fmt.Println(token.ID, token.LastUsedAt)
//			ids = append(ids, token.ID)
//		}
//	}
//	report, err := client.RevokeEach(ctx, ids, refreshtoken.RevokeEachOptions{DryRun: true})
//
// # Errors
//
// There are four types, for [errors.As]:
//
//   - [*ArgumentError]: a mistake in an argument or option. Nothing was sent.
//   - [*APIError]: the service reported a failure, with a [Code].
//   - [*ResponseError]: the response does not follow the API.
//   - [*TransportError]: there was no complete response, or ctx was done.
//
// Targets of [errors.Is] are [ErrGone], [ErrNotFound], [ErrPermissionDenied],
// [ErrUnauthenticated], which means that the IAM token was rejected, and
// [ErrUnavailable], also if the service could not be reached. [CodeUnimplemented] also
// means that there is no such method at the address. No error, result or log line contains
// the refresh token of a call, even if the server sends it back, or the body of a
// response. Texts of the server are kept, without anything that looks like a credential.
//
// # Retries
//
// A request is retried after the HTTP status 429, 502, 503 or 504, the codes
// [CodeUnavailable], [CodeResourceExhausted] and [CodeDeadlineExceeded], a failed
// connection and a truncated response: up to four attempts with
// growing waits, and never before a Retry-After of the server has passed. Any other
// HTTP status from 400 to 499 is final, whatever the code in the response.
// [WithRetry] changes that. Revoke is retried too, because all its
// attempts carry the same idempotency key. Other failures are final, including those of
// the token source behind the http.Client and of the signer of its proofs. A Client does
// not wait past ctx's deadline.
//
// Every request carries a unique x-client-request-id and the
// x-client-trace-id of the Client. The identifiers in the server's response
// are kept in results and errors as a [Trace]; quote them to the provider's support.
//
// # Endpoints
//
// Requests go to Yandex Cloud in Russia, unless [WithEndpoint] or
// [WithOperationEndpoint] changes that. An address is https, or http to a loopback
// address. Redirects are not followed.
package refreshtoken
