// Package grpctransport provides a refreshtoken.Client over gRPC
// (Yandex Cloud IAM API, gRPC: RefreshTokenService and OperationService).
//
//	conn, err := grpctransport.Dial(tokenSource, grpctransport.DialOptions{})
//	if err != nil {
//		return err
//	}
//	defer conn.Close()
//	client := grpctransport.NewClient(conn)
//
// Except for the transport, the Client works like that of package refreshtoken, with the
// same checks, paging, retries, waiting and errors. [Dial] opens the
// connections; any other grpc.ClientConnInterface works too, such as those of
// the official SDK, and [Join] combines two. Give a connection of your own the option
// grpc.WithMaxHeaderListSize(256 << 10), as Dial does: by default, grpc-go accepts an error
// of 16 MiB, which takes up to a GiB of memory.
//
// # Rejected tokens
//
// A server can reject a token that has not expired, for example because it was revoked.
// On the connections of [Dial], and any other with the options of
// [Authenticate], the token source then replaces it, and the call is retried once.
// These options work with any gRPC service, not only those of this package.
//
// For a cloud other than the one in Russia, set its addresses in the options of Dial.
//
// # Errors
//
// They are those of package refreshtoken:
//
//   - *refreshtoken.APIError is the google.rpc.Status of the response, with
//     HTTPStatus 0. Details are its details as JSON, as over REST; one of an unknown type,
//     or with a google.protobuf.Any in it, has only its "@type". Of details that
//     together are larger than 64 KiB, the rest are {}. RetryAfter is the
//     retry_delay of a google.rpc.RetryInfo.
//   - *refreshtoken.ResponseError is a response that is larger than 5 MiB, has metadata
//     larger than 256 KiB, or does not follow the API. If a single value of the metadata is
//     that large, grpc-go closes the connection, and the error is a TransportError.
//   - *refreshtoken.TransportError is a call without a response. It wraps the error of the
//     token source of [Dial] or [Authenticate], so that errors.Is finds
//     oauth.ErrLoginRequired in it.
package grpctransport
