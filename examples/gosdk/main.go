// Gosdk lists the refresh tokens of whoever is logged in through the official Go
// SDK of Yandex Cloud, with IAM tokens that ycauth-go renews.
//
// It runs on an IAM of its own:
//
//	go run ./examples/gosdk
//
// What a program of yours takes from here is the function list: build the SDK with
// yccredentials.Option, leave out the two options that lead to the IAM of this
// example, and ask errors.Is for oauth.ErrLoginRequired.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	ycsdk "github.com/yandex-cloud/go-sdk/v2"
	"github.com/yandex-cloud/go-sdk/v2/pkg/options"
	iamsdk "github.com/yandex-cloud/go-sdk/v2/services/iam/v1"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/yccredentials"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := demo(ctx, os.Stdout)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// list prints the refresh tokens of the session that source renews.
func list(ctx context.Context, out io.Writer, source *oauth.TokenSource, opts ...options.Option) (err error) {
	sdk, err := ycsdk.Build(ctx, append(opts, yccredentials.Option(source))...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sdk.Shutdown(context.WithoutCancel(ctx))) }()

	tokens := iamsdk.NewRefreshTokenClient(sdk).Iterator(ctx, &iampb.ListRefreshTokensRequest{})
	for tokens.Next() {
		t := tokens.Value()
		fmt.Fprintf(out, "%s  %s  %s\n", t.GetId(), t.GetClientId(), t.GetProtectionLevel())
	}
	err = tokens.Error()
	if errors.Is(err, oauth.ErrLoginRequired) {
		// The cause survives the SDK: a service would now ask its user to log in.
		fmt.Fprintln(out, "log in again")
	}
	return err
}
