package refreshtoken_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// exampleIAM stands for Yandex Cloud in the examples.
func exampleIAM() *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /iam/v1/refreshTokens", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("subjectId") != "":
			answerJSON(w, http.StatusForbidden, `{"code":7,"message":"Permission denied"}`)
		case r.URL.Query().Get("pageToken") == "":
			answerJSON(w, http.StatusOK, `{"refreshTokens":[{"id":"aje1","clientId":"yc.oauth.public-sdk",
				"lastUsedAt":"2025-01-02T03:04:05Z","protectionLevel":"NO_PROTECTION"}],"nextPageToken":"page2"}`)
		default:
			answerJSON(w, http.StatusOK, `{"refreshTokens":[{"id":"aje2","clientId":"yc.oauth.public-sdk",
				"lastUsedAt":"2025-06-07T08:09:10Z","protectionLevel":"SECURE_KEY_DPOP"}]}`)
		}
	})
	mux.HandleFunc("POST /iam/v1/refreshTokens:revoke", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, `{"id":"op1","done":false,"metadata":{"refreshTokenIds":["aje1"]}}`)
	})
	mux.HandleFunc("GET /operations/op1", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, `{"id":"op1","done":true,"response":{"refreshTokenIds":["aje1"]}}`)
	})
	return httptest.NewServer(mux)
}

// exampleClient is a client of the server, which polls faster than usual.
func exampleClient(iam *httptest.Server) *refreshtoken.Client {
	return refreshtoken.NewClient(iam.Client(), refreshtoken.WithEndpoint(iam.URL),
		refreshtoken.WithPolling(refreshtoken.Polling{Initial: time.Millisecond}))
}

func ExampleNewClient() {
	iam := exampleIAM()
	defer iam.Close()

	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, iam.Client())
	tokens := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "an IAM token"})
	client := refreshtoken.NewClient(oauth2.NewClient(ctx, tokens),
		refreshtoken.WithEndpoint(iam.URL), // not needed for Yandex Cloud itself
		refreshtoken.WithUserAgent("mycli/1.2.0"))

	for token, err := range client.List(ctx, refreshtoken.ListOptions{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(token.ID)
	}
	// Output:
	// aje1
	// aje2
}

func ExampleClient_List() {
	iam := exampleIAM()
	defer iam.Close()
	client := exampleClient(iam)

	opts := refreshtoken.ListOptions{
		Filter: refreshtoken.Filter{ClientID: "yc.oauth.public-sdk"},
	}
	for token, err := range client.List(context.Background(), opts) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(token.ID, token.LastUsedAt.Format(time.DateOnly), token.ProtectionLevel)
	}
	// Output:
	// aje1 2025-01-02 NO_PROTECTION
	// aje2 2025-06-07 SECURE_KEY_DPOP
}

// A listing that was broken off, or failed, goes on from the page token.
func ExampleClient_Pages() {
	iam := exampleIAM()
	defer iam.Close()
	client := exampleClient(iam)

	var opts refreshtoken.ListOptions
	for page, err := range client.Pages(context.Background(), opts) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(page.RefreshTokens[0].ID)
		opts.PageToken = page.NextPageToken
		break
	}
	for token, err := range client.List(context.Background(), opts) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("later:", token.ID)
	}
	// Output:
	// aje1
	// later: aje2
}

func ExampleClient_Revoke() {
	iam := exampleIAM()
	defer iam.Close()
	client := exampleClient(iam)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	op, err := client.Revoke(ctx, refreshtoken.ByID("aje1"))
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := op.Wait(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("revoked:", result.RefreshTokenIDs)
	// Output: revoked: [aje1]
}

// Another process can wait for the end of a revocation.
func ExampleClient_Operation() {
	iam := exampleIAM()
	defer iam.Close()
	client := exampleClient(iam)

	op, err := client.Operation(context.Background(), "op1")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(op.ID(), op.Done())
	// Output: op1 true
}

func ExampleByFilter() {
	target := refreshtoken.ByFilter(refreshtoken.RevokeFilter{
		ClientID:           "yc.oauth.public-sdk",
		ClientInstanceInfo: "yc/0.141.0",
	})
	fmt.Println("going to revoke", target)
	// Output: going to revoke the refresh tokens with client_id="yc.oauth.public-sdk" AND client_instance_info="yc/0.141.0"
}

func ExampleByToken() {
	target := refreshtoken.ByToken("rt1.some.token")
	fmt.Printf("%v, %+v, %#v\n", target, target, target)
	// Output: the refresh token REDACTED, the refresh token REDACTED, the refresh token REDACTED
}

func ExampleFilter() {
	fmt.Println(refreshtoken.Filter{
		ClientInstanceInfo: "yc/0.141.0",
		ProtectionLevels: []refreshtoken.ProtectionLevel{
			refreshtoken.NoProtection, refreshtoken.InsecureKeyDPoP,
		},
	})
	// Output: client_instance_info="yc/0.141.0" AND protection_level IN ("NO_PROTECTION", "INSECURE_KEY_DPOP")
}

func ExampleAPIError() {
	iam := exampleIAM()
	defer iam.Close()
	client := exampleClient(iam)

	for _, err := range client.List(context.Background(), refreshtoken.ListOptions{SubjectID: "somebody else"}) {
		if errors.Is(err, refreshtoken.ErrPermissionDenied) {
			fmt.Println("not allowed")
		}
		var api *refreshtoken.APIError
		if errors.As(err, &api) {
			fmt.Println(api.Method, api.Code, api.HTTPStatus, api.Message)
		}
	}
	// Output:
	// not allowed
	// List PERMISSION_DENIED 403 Permission denied
}

// Tokens that should go are found first, and looked at, then revoked by their IDs.
func ExampleClient_RevokeEach() {
	iam := exampleIAM()
	defer iam.Close()
	client, ctx := exampleClient(iam), context.Background()

	spring := time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	var ids []string
	for token, err := range client.List(ctx, refreshtoken.ListOptions{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if token.ProtectionLevel == refreshtoken.NoProtection && token.NotUsedSince(spring) {
			fmt.Println(token.ID, "last used on", token.LastUsedAt.Format(time.DateOnly))
			ids = append(ids, token.ID)
		}
	}
	for _, dryRun := range []bool{true, false} {
		report, err := client.RevokeEach(ctx, ids, refreshtoken.RevokeEachOptions{DryRun: dryRun})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("dry run:", report.DryRun, "revoked:", report.Revoked, "failed:", report.Failed)
	}
	// Output:
	// aje1 last used on 2025-01-02
	// dry run: true revoked: [aje1] failed: []
	// dry run: false revoked: [aje1] failed: []
}
