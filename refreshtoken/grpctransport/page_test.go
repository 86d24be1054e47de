package grpctransport_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/refreshtoken"
	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

// A proxy responds with a page that repeats the request. No error, and no cause of one,
// contains anything of it.
func TestPageOfAProxy(t *testing.T) {
	const token = "rt1.AgABcDeFgHiJkLmNoPqRsTuVwXyZ0123456789"
	for _, code := range []int{200, 400, 401, 403, 404, 429, 500, 502, 503} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var http2 http.Protocols
			http2.SetUnencryptedHTTP2(true)
			proxy := &http.Server{Protocols: &http2, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(code)
				fmt.Fprintf(w, "session=hunter2; you sent %s", token)
			})}
			go func() { _ = proxy.Serve(l) }()
			defer proxy.Close()
			client := grpctransport.NewClient(dial(t, l.Addr().String(), source{token: "t"}), quick()...)
			_, err = client.Revoke(t.Context(), refreshtoken.ByToken(token))
			if err == nil {
				t.Fatal("no error")
			}
			for ; err != nil; err = errors.Unwrap(err) {
				if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "hunter2") || strings.Contains(text, token) {
					t.Errorf("%T contains the page: %s", err, text)
				}
			}
		})
	}
}
