package dpop_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
)

// The values of a request's trailer may be set while its body is read.
func TestTransportTrailer(t *testing.T) {
	got := make(chan string, 2)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.Trailer.Get("Checksum")
	}))
	defer srv.Close()
	for name, rt := range map[string]http.RoundTripper{
		"http.Transport": srv.Client().Transport,
		"dpop.Transport": &dpop.Transport{Base: srv.Client().Transport, Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t"})},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = -1
			req.Trailer = http.Header{"Checksum": nil}
			req.Body = io.NopCloser(&eofReader{strings.NewReader("body"), func() { req.Trailer.Set("Checksum", "abc") }})
			resp, err := (&http.Client{Transport: rt}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if s := <-got; s != "abc" {
				t.Errorf("trailer %q", s)
			}
		})
	}
}

type eofReader struct {
	io.Reader
	end func()
}

func (r *eofReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		r.end()
	}
	return n, err
}
