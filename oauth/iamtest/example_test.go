package iamtest_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// get makes a request with an access token.
func get(url, accessToken string) (status int, body string) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+accessToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		log.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// A program that is no test uses New and Close.
func Example() {
	srv, err := iamtest.New(iamtest.Options{Subject: "ajeexampleuser000001"})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	token := srv.IssueAccessToken("", "")
	status, _ := get(srv.URL+"/api/whoami", token)
	fmt.Println("now:", status)

	srv.Advance(12 * time.Hour)
	status, _ = get(srv.URL+"/api/whoami", token)
	fmt.Println("12 hours later:", status)

	for _, r := range srv.Requests() {
		fmt.Printf("%s %s %d %q\n", r.Method, r.Path, r.Status, r.Error)
	}
	// Output:
	// now: 200
	// 12 hours later: 401
	// GET /api/whoami 200 ""
	// GET /api/whoami 401 "invalid_token"
}

// A test of a program that logs in: the server brings everything that package oauth
// needs, a browser and a clock among it.
func Example_login() {
	srv, err := iamtest.New(iamtest.Options{AllowUnbound: true}) // in a test: iamtest.Start(t)
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	client, err := oauth.New(srv.OAuthConfig(nil)) // with a *dpop.Prover, tokens are bound to its key
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if _, err := client.Login(ctx, oauth.LoginOptions{OpenURL: srv.OpenURL}); err != nil {
		log.Fatal(err)
	}
	srv.Advance(13 * time.Hour) // and the client's clock with it: its token has expired
	if err := srv.Inject(iamtest.EndpointToken, iamtest.LostAnswer(), 1); err != nil {
		log.Fatal(err)
	}
	if _, err := client.TokenSource().TokenContext(ctx); err != nil {
		log.Fatal(err)
	}
	for _, r := range srv.Requests()[1:] { // after that of the browser
		fmt.Println(r.GrantType, r.Status)
	}
	// Output:
	// authorization_code 200
	// refresh_token 0
	// refresh_token 200
}

// The next two requests go wrong, the third does not.
func ExampleServer_Inject() {
	srv, err := iamtest.New(iamtest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	for _, f := range []iamtest.Fault{iamtest.HTTPStatus(http.StatusServiceUnavailable, time.Second), iamtest.HTML(http.StatusBadGateway)} {
		if err := srv.Inject(iamtest.EndpointResource, f, 1); err != nil {
			log.Fatal(err)
		}
	}
	token := srv.IssueAccessToken("", "")
	for range 3 {
		status, _ := get(srv.URL+"/api/whoami", token)
		fmt.Println(status)
	}
	// Output:
	// 503
	// 502
	// 200
}

// Refresh tokens can be put into the server without a login for each.
func ExampleServer_Seed() {
	start := time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)
	srv, err := iamtest.New(iamtest.Options{Now: func() time.Time { return start }})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	srv.Seed(1000, func(i int, t *iamtest.Seed) {
		t.ID = fmt.Sprintf("token-%d", i)
		t.ClientInstanceInfo = "yc/0.141.0"
	})
	_, page := get(srv.IAMEndpoint()+"/iam/v1/refreshTokens?pageSize=1", srv.IssueAccessToken("", ""))
	fmt.Println(page[:len(`{"refreshTokens":[{"id":"token-0","clientInstanceInfo":"yc/0.141.0"`)], "…")
	fmt.Println(srv.LiveGrants(), "live grants")
	// Output:
	// {"refreshTokens":[{"id":"token-0","clientInstanceInfo":"yc/0.141.0" …
	// 1000 live grants
}

// A test that goes through every fault at every endpoint begins like this.
func ExampleAllFaults() {
	for _, f := range iamtest.AllFaults() {
		if f.AppliesTo(iamtest.EndpointAuthorize) && f == f.AfterEffect() {
			fmt.Println(f)
		}
	}
	// Output:
	// answer lost
	// status 504, after the effect
	// slow 200ms, after the effect
	// clock skew 5m0s
	// clock skew -5m0s
}
