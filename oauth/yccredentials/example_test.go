package yccredentials_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	ycsdk "github.com/yandex-cloud/go-sdk/v2"
	"github.com/yandex-cloud/go-sdk/v2/pkg/endpoints"
	"github.com/yandex-cloud/go-sdk/v2/pkg/options"
	iamsdk "github.com/yandex-cloud/go-sdk/v2/services/iam/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
	"github.com/ycauth/ycauth-go/oauth/yccredentials"
)

// The official Go SDK calls Yandex Cloud with tokens that are renewed automatically. An
// embedded IAM stands for the cloud.
func ExampleOption() {
	ctx := context.Background()
	iam, err := iamtest.New(iamtest.Options{AllowUnbound: true})
	if err != nil {
		log.Fatal(err)
	}
	defer iam.Close()
	cloud, err := iamgrpc.New(iam, iamgrpc.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer cloud.Close()
	client, err := oauth.New(oauth.Config{Provider: iam.Provider(), ClientID: iam.ClientID})
	if err != nil {
		log.Fatal(err)
	}
	defer client.TokenSource().Close()
	if _, err := client.Login(ctx, oauth.LoginOptions{OpenURL: iam.OpenURL}); err != nil {
		log.Fatal(err)
	}

	sdk, err := ycsdk.Build(ctx,
		options.WithPlaintext(), // this option and the next lead to the embedded IAM
		options.WithEndpointsResolver(endpoints.NewSingleEndpointResolver(cloud.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))),
		yccredentials.Option(client.TokenSource()))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = sdk.Shutdown(ctx) }()
	for range 2 {
		list, err := iamsdk.NewRefreshTokenClient(sdk).List(ctx, &iampb.ListRefreshTokensRequest{})
		if errors.Is(err, oauth.ErrLoginRequired) { // the cause survives the SDK
			log.Fatal("log in again: ", err)
		}
		if err != nil {
			log.Fatal(err)
		}
		for _, t := range list.GetRefreshTokens() {
			fmt.Println(t.GetClientId(), t.GetProtectionLevel())
		}
		iam.Advance(13 * time.Hour) // the IAM token expires
	}
	// Output:
	// yc.oauth.public-sdk NO_PROTECTION
	// yc.oauth.public-sdk NO_PROTECTION
}
