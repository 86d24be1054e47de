package refreshtoken_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// A mistake in an option is told by every call, and nothing is sent.
func TestOptionMistakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		option refreshtoken.Option
		field  string
		reason string
	}{
		{"http to another host", refreshtoken.WithEndpoint("http://iam.example"), "WithEndpoint", "only https keeps tokens secret"},
		{"empty", refreshtoken.WithEndpoint(""), "WithEndpoint", "is empty"},
		{"host only", refreshtoken.WithEndpoint("iam.api.cloud.yandex.net"), "WithEndpoint", "is not an absolute URL"},
		{"not a URL", refreshtoken.WithEndpoint("https://[::1"), "WithEndpoint", "is not a URL"},
		{"other scheme", refreshtoken.WithEndpoint("ftp://127.0.0.1"), "WithEndpoint", "neither https nor http"},
		{"password", refreshtoken.WithEndpoint("https://me:secret-value@iam.example"), "WithEndpoint", "user information"},
		{"query", refreshtoken.WithEndpoint("https://iam.example?secret-value"), "WithEndpoint", "has a query"},
		{"empty query", refreshtoken.WithEndpoint("https://iam.example?"), "WithEndpoint", "has a query"},
		{"fragment", refreshtoken.WithEndpoint("https://iam.example#secret-value"), "WithEndpoint", "has a fragment"},
		{"operation endpoint", refreshtoken.WithOperationEndpoint("http://operation.example"), "WithOperationEndpoint", "only https"},
		{"user agent", refreshtoken.WithUserAgent("a\r\nX-Evil: secret-value"), "WithUserAgent", "printable ASCII"},
		{"trace id", refreshtoken.WithTraceID("secret-value\n"), "WithTraceID", "printable ASCII"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := refreshtoken.NewClient(&http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				t.Errorf("sent to %s", r.URL)
				return nil, io.EOF
			})}, c.option)
			_, listErr := list(client, refreshtoken.ListOptions{})
			_, revokeErr := client.Revoke(t.Context(), refreshtoken.AllMine())
			_, operationErr := client.Operation(t.Context(), "op1")
			for _, err := range []error{listErr, revokeErr, operationErr} {
				e := as[*refreshtoken.ArgumentError](t, err)
				if e.Field != c.field {
					t.Errorf("got field %q", e.Field)
				}
				wantText(t, e.Error(), c.reason)
				if strings.Contains(e.Error(), "secret-value") {
					t.Errorf("%q repeats the value", e)
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for name, client := range map[string]*refreshtoken.Client{
		"the transport":         refreshtoken.New(nil),
		"WithEndpoint":          refreshtoken.New(&fakeTransport{}, refreshtoken.WithEndpoint("https://iam.example")),
		"WithOperationEndpoint": refreshtoken.New(&fakeTransport{}, refreshtoken.WithOperationEndpoint("https://operation.example")),
		"WithUserAgent":         refreshtoken.New(&fakeTransport{}, refreshtoken.WithUserAgent("mycli/1.2.0")),
	} {
		_, err := list(client, refreshtoken.ListOptions{})
		if e := as[*refreshtoken.ArgumentError](t, err); e.Field != name {
			t.Errorf("got %v, want a word about %s", err, name)
		}
	}
}

func TestEndpoints(t *testing.T) {
	const iam, operations = "iam.api.cloud.yandex.net", "operation.api.cloud.yandex.net"
	for _, c := range []struct {
		name            string
		opts            []refreshtoken.Option
		iam, operations string
	}{
		{"defaults", nil, "https://" + iam + "/iam/v1/refreshTokens", "https://" + operations + "/operations/op1"},
		{"nil options", []refreshtoken.Option{nil, refreshtoken.WithLogger(nil)},
			"https://" + iam + "/iam/v1/refreshTokens", "https://" + operations + "/operations/op1"},
		{"an IAM token does not travel to a cloud that was not named", []refreshtoken.Option{refreshtoken.WithEndpoint("http://localhost:8080")},
			"http://localhost:8080/iam/v1/refreshTokens", "http://localhost:8080/operations/op1"},
		{"another region", []refreshtoken.Option{refreshtoken.WithEndpoint("https://iam.api.yandexcloud.kz"), refreshtoken.WithOperationEndpoint("https://operation.api.yandexcloud.kz/")},
			"https://iam.api.yandexcloud.kz/iam/v1/refreshTokens", "https://operation.api.yandexcloud.kz/operations/op1"},
		{"operations elsewhere", []refreshtoken.Option{refreshtoken.WithOperationEndpoint("http://[::1]:80/proxy")},
			"https://" + iam + "/iam/v1/refreshTokens", "http://[::1]:80/proxy/operations/op1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var urls []string
			hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				urls = append(urls, r.URL.String())
				return response(http.StatusOK, "application/json", doneAtAll), nil
			})}
			client := refreshtoken.NewClient(hc, c.opts...)
			if _, err := list(client, refreshtoken.ListOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Operation(context.Background(), "op1"); err != nil {
				t.Fatal(err)
			}
			if urls[0] != c.iam || urls[1] != c.operations {
				t.Errorf("got %q", urls)
			}
		})
	}
}

func TestTraceIDOfTheClient(t *testing.T) {
	s := serve(t, answer(http.StatusOK, `{}`))
	for _, opts := range [][]refreshtoken.Option{nil, nil, {refreshtoken.WithTraceID("")}} {
		if _, err := list(s.client(opts...), refreshtoken.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range s.seen() {
		got = append(got, strings.Join(r.header.Values("X-Client-Trace-Id"), ", "))
	}
	if !uuidV4.MatchString(got[0]) || !uuidV4.MatchString(got[1]) || got[0] == got[1] || got[2] != "" {
		t.Errorf("got %q, want two UUIDs and nothing", got)
	}
}
