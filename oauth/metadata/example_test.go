package metadata_test

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/oauth/metadata"
)

// tokens stands for (*oauth.Client).TokenSource.
type tokens struct{}

func (tokens) TokenContext(context.Context) (*oauth2.Token, error) {
	return &oauth2.Token{AccessToken: "t1.token"}, nil
}

// A program gets tokens in the way of a virtual machine.
func ExampleServer_Serve() {
	server := metadata.New(tokens{}, metadata.Options{})
	defer server.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	served := make(chan error)
	go func() { served <- server.Serve(ctx, l) }()
	// Here, run the program with YC_METADATA_ADDR=l.Addr().String(). It sends this request:
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr().String()+metadata.TokenPath, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	req.Header.Set("Metadata-Flavor", "Google")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	http.DefaultClient.CloseIdleConnections()
	stop()
	fmt.Println(<-served)
	// Output:
	// 200 OK
	// <nil>
}
