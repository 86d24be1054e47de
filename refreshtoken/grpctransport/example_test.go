package grpctransport_test

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/refreshtoken"
	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

// The token source of package oauth authenticates each call, and its errors come
// through.
func ExampleDial() {
	list := func(ctx context.Context, source *oauth.TokenSource) error {
		conn, err := grpctransport.Dial(source, grpctransport.DialOptions{})
		if err != nil {
			return err
		}
		defer conn.Close()
		for token, err := range grpctransport.NewClient(conn).List(ctx, refreshtoken.ListOptions{}) {
			if errors.Is(err, oauth.ErrLoginRequired) {
				return fmt.Errorf("please log in: %w", err)
			}
			if err != nil {
				return err
			}
			fmt.Println(token.ID)
		}
		return nil
	}
	_ = list
}

// Any gRPC service can be called with the tokens of package oauth. A token that the
// service rejects is replaced, and the call made once more.
func ExampleAuthenticate() {
	dial := func(address string, source *oauth.TokenSource) (*grpc.ClientConn, error) {
		return grpc.NewClient(address, append(grpctransport.Authenticate(source),
			grpc.WithTransportCredentials(credentials.NewTLS(nil)))...)
	}
	_ = dial
}
