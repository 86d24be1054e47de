package iamtest_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// FuzzEndpoints: whatever comes, the server answers, and not with a 5xx.
func FuzzEndpoints(f *testing.F) {
	srv := iamtest.Start(f)
	f.Add("/oauth/token", "", "grant_type=refresh_token", "", "")
	f.Fuzz(func(t *testing.T, path, query, body, proof, authorization string) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			req := &http.Request{
				Method: method, URL: &url.URL{Scheme: "http", Host: strings.TrimPrefix(srv.URL, "http://"), Path: path, RawQuery: query},
				Header: http.Header{
					"Content-Type": {"application/x-www-form-urlencoded"}, "Dpop": {proof}, "Authorization": {authorization},
				},
				Body: http.NoBody,
			}
			if method == http.MethodPost {
				req.Body = readCloser{strings.NewReader(body)}
			}
			resp, err := srv.RoundTripper().RoundTrip(req.WithContext(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode < 200 || resp.StatusCode >= 500 || (resp.Header.Get("X-Request-Id") == "") != strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
				t.Errorf("status %d, header %v", resp.StatusCode, resp.Header)
			}
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
