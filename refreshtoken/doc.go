// Package refreshtoken lists and revokes the refresh tokens of Yandex Cloud
// accounts (Yandex Cloud IAM API, RefreshToken.List and RefreshToken.Revoke).
//
// A [Client] is made by [NewClient] from an http.Client that authenticates with
// an IAM token, such as that of package github.com/ycauth/ycauth-go/oauth:
//
//	client := refreshtoken.NewClient(oauthClient.HTTPClient())
//
// The http.Client of oauth2.NewClient in golang.org/x/oauth2 works as well, but cannot
// tell its token source that the service rejected a token: one that was revoked is
// sent until it expires, for up to 12 hours. Nor does it end a token request when
// ctx ends.
//
// This package handles token metadata only. Package oauth obtains and uses tokens.
//
// # Listing
//
// [Client.List] is an iterator over all tokens that the options select, and
// [Client.Pages] one over the pages that they come in:
//
//	for token, err := range client.List(ctx, refreshtoken.ListOptions{}) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(token.ID, token.ClientID, token.LastUsedAt)
//	}
//
// From the middle of a page on, the next one is fetched; see [ListOptions]
// NoLookahead. Breaking out of the loop leaks nothing. A page without tokens does not
// end the listing. A page token that the server sends twice does, with
// [ErrPageTokenRepeated], and so do 100 pages without tokens in a row, with a
// [*ResponseError].
//
// The tokens of another account are listed with [ListOptions] SubjectID. The
// caller then needs one of the roles organization-manager.viewer,
// organization-manager.admin and iam.userAccounts.refreshTokenViewer.
//
// A [Filter] has the server select tokens by client, application instance and
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
// Another process waits for the same operation through [Client.Operation]. To
// revoke the tokens of another account, the caller needs one of the roles
// organization-manager.federations.userAdmin and
// iam.userAccounts.refreshTokenRevoker.
//
// A token counts as revoked only if the response lists it. An error that wraps
// [ErrGone] says that the service does not have the token any more, so that a program
// may forget it:
//
//	if err != nil && !errors.Is(err, refreshtoken.ErrGone) {
//		return err // the token may still be there
//	}
//
// No other 404 says that: neither the page of a proxy nor a NOT_FOUND about the
// operation or the account, nor one that does not say what is missing.
//
// # Housekeeping
//
// [Client.RevokeEach] revokes tokens by their IDs, several at a time, and reports what
// became of each. Look at them first, in a dry run for example:
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
//   - [*TransportError]: there was no complete response, or ctx ended.
//
// Targets of [errors.Is] are [ErrGone], [ErrNotFound], [ErrPermissionDenied],
// [ErrUnauthenticated], which means that the IAM token was rejected, and
// [ErrUnavailable], also if the service could not be reached. [CodeUnimplemented] also
// means that there is no such method at the address. No error, result or log line holds the refresh token of
// a call, even if the server sends it back, or the body of a response. The texts of
// the server are kept, with everything that looks like a credential taken out.
//
// # Retries
//
// A request is made again after the HTTP status 429, 502, 503 or 504, the codes
// [CodeUnavailable], [CodeResourceExhausted] and [CodeDeadlineExceeded], a
// connection that failed and a response that was cut off: up to four attempts with
// growing waits, and never before a Retry-After of the server has passed.
// [WithRetry] changes that. Revoke is retried like the others, since all its
// attempts carry one idempotency key. Other failures are final, those of the token
// source behind the http.Client included, and those of the signer of its proofs. A
// Client does not wait past ctx's deadline.
//
// Every request carries an x-client-request-id of its own and the
// x-client-trace-id of the Client. The identifiers in the server's response
// are kept in results and errors as a [Trace], to be quoted to its support.
//
// # Endpoints
//
// Requests go to Yandex Cloud in Russia, or where [WithEndpoint] and
// [WithOperationEndpoint] say. An address is https, or http to a loopback address.
// Redirects are not followed.
package refreshtoken
