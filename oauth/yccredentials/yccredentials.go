// Package yccredentials lets the official Go SDK of Yandex Cloud
// (github.com/yandex-cloud/go-sdk/v2) authenticate with the sessions of package
// oauth:
//
//	sdk, err := ycsdk.Build(ctx, yccredentials.Option(client.TokenSource()))
//
// It is a package of its own so that importers of oauth do not build the SDK.
//
// # Rejected tokens
//
// The service can reject an IAM token that has not expired, because it was revoked
// for example. With [Option], the token source then replaces it, and the SDK's call is
// made once more. With the credentials of [New] alone nobody tells the token source,
// and the SDK goes on to send the token until it expires, for up to 12 hours.
//
// # Errors
//
// The SDK turns whatever its credentials fail with into the status Unauthenticated
// with a text, unless the error has that status already. [Error] has it, so that
// the cause stays within reach of [errors.Is] and [errors.As] in what a call of
// the SDK returns:
//
//	if errors.Is(err, oauth.ErrLoginRequired) {
//		// have the user log in again
//	}
//
// Without an [*Error] in it, an Unauthenticated is the response of the service: it
// rejected the token, and there is no other one.
package yccredentials

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/yandex-cloud/go-sdk/v2/credentials"
	"github.com/yandex-cloud/go-sdk/v2/pkg/options"
	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

// TokenSource is what [Option] and [New] make credentials of: *oauth.TokenSource.
type TokenSource interface {
	// TokenContext returns a token that is valid now.
	TokenContext(ctx context.Context) (*oauth2.Token, error)
}

// Option has the SDK authenticate with the tokens of src, and replace one that the
// service rejects if src has a method Invalidate(*oauth2.Token), as
// *oauth.TokenSource has. It stands for options.WithCredentials of [New] and for the
// interceptors of grpctransport.Authenticate.
//
// It adds to the dial options of the SDK. options.WithCustomDialOptions replaces them
// and so must come before.
func Option(src TokenSource) options.Option {
	return func(o *options.Options) {
		o.Credentials = New(src)
		if s, ok := src.(invalidator); ok {
			o.CustomDialOpts = append(slices.Clip(o.CustomDialOpts),
				grpctransport.Authenticate(metadataSource{tokenCredentials{src}, s})...)
		}
	}
}

// New returns credentials for options.WithCredentials of the SDK, whose IAM tokens
// come from src. They are safe for concurrent use if src is. Most programs take
// [Option]: credentials do not learn that the service rejected a token.
//
// The SDK asks them with every call, and caches nothing: it keeps a token to its
// very end, while an *oauth.TokenSource renews it in good time. For that the tokens
// come without the time of their expiry. Where that is needed, src has it.
func New(src TokenSource) credentials.NonExchangeableCredentials {
	return &tokenCredentials{src}
}

type tokenCredentials struct{ src TokenSource }

// YandexCloudAPICredentials marks credentials of the SDK.
func (c *tokenCredentials) YandexCloudAPICredentials() {}

// IAMToken returns a token that is valid now. The error is an [*Error].
func (c *tokenCredentials) IAMToken(ctx context.Context) (*credentials.CredentialsToken, error) {
	if c.src == nil {
		return nil, &Error{errors.New("the token source is nil")}
	}
	tok, err := c.src.TokenContext(ctx)
	switch {
	case err != nil:
		return nil, &Error{err}
	case tok == nil || tok.AccessToken == "":
		return nil, &Error{errors.New("the token source returned no token")}
	case tok.Type() != "Bearer":
		return nil, &Error{fmt.Errorf("a token of type %s cannot be sent over gRPC", tok.Type())}
	}
	return &credentials.CredentialsToken{Token: tok.AccessToken}, nil
}

// An invalidator is told of tokens that a server rejected.
type invalidator interface{ Invalidate(rejected *oauth2.Token) }

// metadataSource is the source of a grpctransport.Authenticate.
type metadataSource struct {
	tokenCredentials
	invalidator
}

// GetRequestMetadata returns what the SDK makes of the token.
func (s metadataSource) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	tok, err := s.IAMToken(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + tok.Token}, nil
}

// An Error says that there is no IAM token for a call, which was not made.
type Error struct {
	// Err is the error of the token source, such as an oauth.ErrLoginRequired.
	Err error
}

// Error is the text of the cause.
func (e *Error) Error() string {
	const text = "yccredentials: no IAM token"
	if e.Err == nil {
		return text
	}
	return text + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus is Unauthenticated: it is the status that the SDK hands on as it is.
func (e *Error) GRPCStatus() *status.Status { return status.New(codes.Unauthenticated, e.Error()) }
