package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/yandex-cloud/go-sdk/v2/pkg/endpoints"
	"github.com/yandex-cloud/go-sdk/v2/pkg/options"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
)

// demo is list on an IAM in this process: while the session is good, after its IAM
// token has expired, and after an administrator has ended it.
func demo(ctx context.Context, out io.Writer) error {
	iam, err := iamtest.New(iamtest.Options{}) //nolint:contextcheck // a server lives until it is closed
	if err != nil {
		return err
	}
	defer iam.Close()
	face, err := iamgrpc.New(iam, iamgrpc.Options{}) //nolint:contextcheck // a server lives until it is closed
	if err != nil {
		return err
	}
	defer face.Close()
	client, err := login(ctx, iam)
	if err != nil {
		return err
	}
	source := client.TokenSource()
	defer source.Close()

	// The options that lead to the IAM of this example, and not to the cloud.
	local := options.WithEndpointsResolver(endpoints.NewSingleEndpointResolver(
		face.Address, grpc.WithTransportCredentials(insecure.NewCredentials())))
	plain := options.WithPlaintext()

	fmt.Fprintln(out, "You logged in. Your refresh tokens, says the official SDK:")
	if err := list(ctx, out, source, local, plain); err != nil {
		return err
	}
	iam.Advance(13 * time.Hour)
	fmt.Fprintln(out, "\n13 hours later the IAM token has expired. Another one came by itself:")
	if err := list(ctx, out, source, local, plain); err != nil {
		return err
	}
	session, err := client.Session(ctx)
	if err != nil {
		return err
	}
	iam.RevokeRefreshToken(session.RefreshToken.Reveal())
	iam.Advance(13 * time.Hour)
	fmt.Fprintln(out, "\nAn administrator ended the session, and the IAM token has expired again:")
	if err := list(ctx, out, source, local, plain); !errors.Is(err, oauth.ErrLoginRequired) {
		return fmt.Errorf("want an error that says to log in again, got %w", err)
	}
	return nil
}

// login is a login without a person: the embedded server approves each login.
func login(ctx context.Context, iam *iamtest.Server) (*oauth.Client, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	prover, err := dpop.New(key)
	if err != nil {
		return nil, err
	}
	client, err := oauth.New(oauth.Config{
		Provider: iam.Provider(), // oauth.YandexCloud() in earnest; this one brings a clock that runs faster
		ClientID: iam.ClientID,
		DPoP:     prover,
	})
	if err != nil {
		return nil, err
	}
	_, err = client.Login(ctx, oauth.LoginOptions{OpenURL: iam.OpenURL})
	return client, err
}
