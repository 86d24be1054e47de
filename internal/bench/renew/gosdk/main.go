// Gosdk renews a token with the official SDK, and does nothing else: what
// importing it costs is measured by this program.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	ycsdk "github.com/yandex-cloud/go-sdk/v2"
	"github.com/yandex-cloud/go-sdk/v2/credentials"
	"github.com/yandex-cloud/go-sdk/v2/pkg/options"
)

func main() {
	ctx := context.Background()
	sdk, err := ycsdk.Build(ctx, options.WithCredentials(credentials.OAuthToken(os.Getenv("OAUTH_TOKEN")))) //nolint:staticcheck // what people have today, to compare its weight
	if err != nil {
		log.Fatal(err)
	}
	token, err := sdk.CreateIAMToken(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.GetExpiresAt())
}
