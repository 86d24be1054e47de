// Package refreshtoken lists and revokes the refresh tokens of Yandex Cloud
// accounts (Yandex Cloud IAM API, RefreshToken.List and RefreshToken.Revoke).
//
// A [Client] is made by [NewClient] from an http.Client that authenticates with
// an IAM token, such as that of oauth2.NewClient:
//
//	client := refreshtoken.NewClient(oauth2.NewClient(ctx, tokenSource))
//
// This package knows refresh tokens by their descriptions. To obtain and use one
// is the work of github.com/ycauth/ycauth-go/oauth.
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
// While the loop works on one page, the next one is fetched; see [ListOptions]
// NoLookahead. Breaking off leaves nothing behind: no goroutine, no connection that
// waits. A page without tokens does not end the listing; a page token that the server
// sends twice does, with [ErrPageTokenRepeated].
//
// The tokens of another account are listed with [ListOptions] SubjectID. The
// caller then needs one of the roles organization-manager.viewer,
// organization-manager.admin and iam.userAccounts.refreshTokenViewer.
//
// # Filters
//
// A [Filter] has the server select tokens by client, application instance and
// [ProtectionLevel]. [ParseFilter] reads the same from the expression that the
// API documents:
//
//	client_instance_info="yc/0.141.0" AND protection_level IN ("NO_PROTECTION", "INSECURE_KEY_DPOP")
//
// # Revoking
//
// [Client.Revoke] takes a [Target], which cannot be empty by accident: [ByID],
// [ByToken], [ByFilter] with at least one condition, or [AllMine]. The server
// revokes in an operation of its own time, which [RevokeOperation.Wait] waits for:
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
// # Housekeeping
//
// [Client.Find] lists the tokens that should go, and why, by a [Rule] or several:
// [Unprotected], [NotUsedSince], [CreatedBefore], [ClientOlderThan].
// [Client.RevokeEach] revokes tokens by their IDs, several at a time, and reports
// what became of each. DryRun first:
//
//	var ids []string
//	for found, err := range client.Find(ctx, refreshtoken.ListOptions{SubjectID: subject}, refreshtoken.Unprotected()) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(found.ID, found.Reasons)
//		ids = append(ids, found.ID)
//	}
//	report, err := client.RevokeEach(ctx, ids, refreshtoken.RevokeEachOptions{DryRun: true})
//
// # Errors
//
// There are four types, for [errors.As]:
//
//   - [*ArgumentError]: a mistake in an argument or option. Nothing was sent.
//   - [*APIError]: the service reported a failure, with a [Code].
//   - [*ResponseError]: the answer does not follow the API.
//   - [*TransportError]: there was no whole answer, or ctx ended.
//
// A Code is a target of [errors.Is]:
//
//	errors.Is(err, refreshtoken.ErrPermissionDenied)
//
// [ErrUnauthenticated] means that the IAM token was refused, and
// [ErrUnavailable] also that the service could not be reached. No error, and no
// log line, holds a refresh token or the body of an answer. The texts of the
// server are kept, with everything that looks like a credential taken out.
//
// # Retries
//
// A request is made again after the HTTP status 429, 502, 503 or 504, the codes
// [ErrUnavailable], [ErrResourceExhausted] and [ErrDeadlineExceeded], a
// connection that failed and an answer that was cut off: up to four attempts with
// growing waits, and never before a Retry-After of the server has passed.
// [WithRetry] changes that. Revoke is retried like the others, since all its
// attempts carry one idempotency key. Other failures are final, those of the token
// source behind the http.Client included. A wait that ctx cannot live through is
// not begun.
//
// Every request carries an x-client-request-id of its own and the
// x-client-trace-id of the Client. The identifiers that the server answers with
// are kept in results and errors as a [Trace], to be quoted to its support.
//
// # Endpoints
//
// Requests go to Yandex Cloud in Russia, or where [WithEndpoint] and
// [WithOperationEndpoint] say. An address is https, or http to a loopback address.
// Redirects are refused.
//
// A [Discovery] finds both by the one address of a cloud's API:
//
//	cloud := refreshtoken.NewDiscovery(nil, "api.yandexcloud.kz")
//	client := refreshtoken.NewClient(hc, refreshtoken.WithDiscovery(cloud))
package refreshtoken
