package conformance

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A wire is the proxy that stands between a browser and every network. It sees
// what developer tools do not show, such as requests for icons, and lets nothing
// through but plain http to this machine.
type wire struct {
	URL string

	mu   sync.Mutex
	sent []sentRequest
}

// A sentRequest is one request of the browser as it was on the wire.
type sentRequest struct {
	Method  string
	URL     *url.URL
	Referer string
	All     http.Header
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := new(wire)
	forward := &httputil.ReverseProxy{
		Transport: plain.Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL, r.Out.Host = r.In.URL, r.In.Host
		},
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, _ error) {
			rw.WriteHeader(http.StatusBadGateway)
		},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.note(r)
		if ip := net.ParseIP(r.URL.Hostname()); r.URL.Scheme != "http" || !ip.IsLoopback() {
			http.Error(rw, "no way out", http.StatusForbidden)
			return
		}
		forward.ServeHTTP(rw, r)
	}))
	t.Cleanup(srv.Close)
	w.URL = srv.URL
	return w
}

func (w *wire) note(r *http.Request) {
	u := *r.URL
	if u.Host == "" { // CONNECT, for https
		u.Host = r.Host
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, sentRequest{r.Method, &u, r.Header.Get("Referer"), r.Header.Clone()})
}

// requests are those so far to a host with its port, or all with "".
func (w *wire) requests(host string) []sentRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.sent), func(r sentRequest) bool { return host != "" && r.URL.Host != host })
}

// carried reports whether a request had text, which is a credential, in anything
// but the URL that it belongs in.
func (r sentRequest) carried(text string) bool {
	for name, values := range r.All {
		for _, v := range append(values, name) {
			if strings.Contains(v, text) || strings.Contains(v, url.QueryEscape(text)) {
				return true
			}
		}
	}
	return false
}
