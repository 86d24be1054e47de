// Package yccredentials lets the official Go SDK of Yandex Cloud
// (github.com/yandex-cloud/go-sdk/v2) authenticate with the sessions of package
// oauth:
//
//	sdk, err := ycsdk.Build(ctx, options.WithCredentials(yccredentials.New(client.TokenSource())))
//
// It is a package of its own so that importers of oauth do not build the SDK.
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
// Without an [*Error] in it, an Unauthenticated is the answer of the service: it
// refused the token.
package yccredentials

import (
	"context"
	"fmt"

	"github.com/yandex-cloud/go-sdk/v2/credentials"
	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TokenSource is what [New] makes credentials of: *oauth.TokenSource.
type TokenSource interface {
	// TokenContext returns a token that is valid now.
	TokenContext(ctx context.Context) (*oauth2.Token, error)
}

// New returns credentials for options.WithCredentials of the SDK, whose IAM tokens
// come from src. They are safe for concurrent use if src is.
//
// The SDK asks them with every call, and caches nothing: it keeps a token to its
// very end, while an *oauth.TokenSource renews it in good time and drops one that
// was refused. For that the tokens come without the time of their expiry. Where
// that is needed, src has it.
func New(src TokenSource) credentials.NonExchangeableCredentials {
	return &tokenCredentials{src}
}

type tokenCredentials struct{ src TokenSource }

// YandexCloudAPICredentials marks credentials of the SDK.
func (c *tokenCredentials) YandexCloudAPICredentials() {}

// IAMToken returns a token that is valid now. The error is an [*Error].
func (c *tokenCredentials) IAMToken(ctx context.Context) (*credentials.CredentialsToken, error) {
	tok, err := c.src.TokenContext(ctx)
	if err != nil {
		return nil, &Error{err}
	}
	if tok.Type() != "Bearer" {
		return nil, &Error{fmt.Errorf("a token of type %s cannot be sent over gRPC", tok.Type())}
	}
	return &credentials.CredentialsToken{Token: tok.AccessToken}, nil
}

// An Error says that there is no IAM token for a call, which was not made.
type Error struct {
	// Err is the error of the token source, such as an oauth.ErrLoginRequired.
	Err error
}

// Error is the text of the cause.
func (e *Error) Error() string { return "yccredentials: no IAM token: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus is Unauthenticated: it is the status that the SDK hands on as it is.
func (e *Error) GRPCStatus() *status.Status { return status.New(codes.Unauthenticated, e.Error()) }
