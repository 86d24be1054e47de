package grpctransport_test

import (
	"context"
	"errors"
	"fmt"

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
