package main

import (
	"context"
	"fmt"
	"os"
	"time"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	ycsdk "github.com/yandex-cloud/go-sdk/v2"
	"github.com/yandex-cloud/go-sdk/v2/credentials"
	sdkendpoints "github.com/yandex-cloud/go-sdk/v2/pkg/endpoints"
	"github.com/yandex-cloud/go-sdk/v2/pkg/options"
	iamsdk "github.com/yandex-cloud/go-sdk/v2/services/iam/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// gosdkMain is a program with the official Go SDK, as it runs on a virtual machine: it
// lists refresh tokens at the gRPC server $IAM_GRPC, and prints how many there are.
func gosdkMain() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := func() error {
		sdk, err := ycsdk.Build(ctx,
			options.WithCredentials(credentials.InstanceServiceAccount()),
			options.WithEndpointsResolver(sdkendpoints.NewSingleEndpointResolver(
				os.Getenv("IAM_GRPC"), grpc.WithTransportCredentials(insecure.NewCredentials()))),
			options.WithPlaintext())
		if err != nil {
			return err
		}
		list, err := iamsdk.NewRefreshTokenClient(sdk).List(ctx, &iampb.ListRefreshTokensRequest{})
		if err != nil {
			return err
		}
		fmt.Println(len(list.GetRefreshTokens()), "refresh tokens")
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gosdk:", err)
		os.Exit(1)
	}
}
