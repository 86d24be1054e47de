// Package yccredentials lets the official Go SDK of Yandex Cloud
// (github.com/yandex-cloud/go-sdk/v2) authenticate with the sessions of package
// oauth:
//
//	sdk, err := ycsdk.Build(ctx, yccredentials.Option(client.TokenSource()))
//
// It is a separate package so that importers of oauth do not build the SDK.
//
// # Rejected tokens
//
// The service can reject an IAM token that has not expired, for example because it was
// revoked. With [Option], the token source then replaces it, and the SDK's call is
// retried once. With only the credentials of [New], the token source is not notified,
// and the SDK keeps sending the token until it expires, for up to 12 hours.
//
// # Errors
//
// The SDK turns any error of its credentials into the status Unauthenticated
// with a text, unless the error already has that status. [Error] has it, so
// [errors.Is] and [errors.As] find the cause in the error of a call of
// the SDK:
//
//	if errors.Is(err, oauth.ErrLoginRequired) {
//		// have the user log in again
//	}
//
// An Unauthenticated error without an [*Error] in it comes from the service, which
// rejected the token when there was no other one.
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

// TokenSource provides the tokens for [Option] and [New]. *oauth.TokenSource implements it.
type TokenSource interface {
	// TokenContext returns a token that is valid now.
	TokenContext(ctx context.Context) (*oauth2.Token, error)
}

// Option makes the SDK authenticate with the tokens of src. If src has a method
// Invalidate(*oauth2.Token), as *oauth.TokenSource has, a token that the service rejects
// is replaced. Option combines options.WithCredentials of [New] with the
// interceptors of grpctransport.Authenticate.
//
// It adds to the dial options of the SDK. options.WithCustomDialOptions replaces them,
// so it must come first.
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
// come from src. They are safe for concurrent use if src is. Most programs should use
// [Option], because credentials are not notified if the service rejects a token.
//
// The tokens are returned without their expiry, so that the SDK does not cache them and
// asks for one with every call. Otherwise it would use a token until it expires, while an
// *oauth.TokenSource renews it in time. Get the expiry from src if you need it.
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

// An Error means that there is no IAM token for a call, which was not sent.
type Error struct {
	// Err is the error of the token source, such as an oauth.ErrLoginRequired.
	Err error
}

// Error returns the text of the cause.
func (e *Error) Error() string {
	const text = "yccredentials: no IAM token"
	if e.Err == nil {
		return text
	}
	return text + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus returns Unauthenticated, which the SDK passes on unchanged.
func (e *Error) GRPCStatus() *status.Status { return status.New(codes.Unauthenticated, e.Error()) }
