// Package grpctransport makes a refreshtoken.Client that speaks gRPC
// (Yandex Cloud IAM API, gRPC: RefreshTokenService and OperationService).
//
//	conn, err := grpctransport.Dial(tokenSource, grpctransport.DialOptions{})
//	if err != nil {
//		return err
//	}
//	defer conn.Close()
//	client := grpctransport.NewClient(conn)
//
// The Client is the one of package refreshtoken in everything that is not the
// transport itself: checks, paging, retries, waiting, errors. [Dial] opens the
// connections; any other grpc.ClientConnInterface does as well, such as those of
// the official SDK, and [Join] makes one of two.
//
// # Rejected tokens
//
// A server can reject a token that has not expired, because it was revoked for
// example. The connections of [Dial], and any other with the options of
// [Authenticate], then have the token source replace it, and make the call once more.
// These options serve any gRPC service, not only those of this package.
//
// The addresses of another cloud than the one in Russia are options of Dial.
//
// # Errors
//
// They are those of package refreshtoken:
//
//   - *refreshtoken.APIError is the google.rpc.Status of the response, with
//     HTTPStatus 0. Details are its messages as JSON, as over REST; one of a type
//     that this program does not know is its "@type" alone. RetryAfter is the
//     retry_delay of a google.rpc.RetryInfo.
//   - *refreshtoken.ResponseError is a response that is larger than 16 MiB, or is not
//     what the API describes.
//   - *refreshtoken.TransportError is a call without a response. It wraps what the
//     token source of [Dial] or [Authenticate] failed with, so that errors.Is finds
//     the oauth.ErrLoginRequired in it.
package grpctransport
