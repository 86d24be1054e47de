// Package wire implements the rules for every HTTP exchange of this module:
// https except on loopback, no redirects, and limited bodies.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// MaxBody is the most that is read of any response, in bytes.
const MaxBody = 1 << 20

// ErrTooLarge is returned by [ReadBody] for a response longer than [MaxBody].
var ErrTooLarge = errors.New("the response is larger than 1 MiB")

// CheckURL parses an absolute URL to which credentials may be sent: https, or
// http where the host is this machine (RFC 8252 §8.3), without user
// information and fragment. Its errors name the host at most, never the rest of
// the URL.
func CheckURL(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, errors.New("is empty")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("is not a URL")
	}
	switch {
	case u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("is not an absolute URL with a host")
	case u.User != nil:
		return nil, errors.New("has user information: pass credentials separately")
	case u.Fragment != "":
		return nil, errors.New("has a fragment")
	}
	switch strings.ToLower(u.Scheme) {
	case "https":
	case "http":
		if !IsLoopback(u.Hostname()) {
			return nil, fmt.Errorf("uses http to %s: only https keeps tokens secret (http is accepted for loopback addresses)", u.Hostname())
		}
	default:
		return nil, errors.New("is neither https nor http to a loopback address")
	}
	return u, nil
}

// IsLoopback reports whether host (a name or an IP address without port and
// brackets) is this machine: an address of 127.0.0.0/8, ::1, or localhost.
// RFC 6761 §6.3 reserves the names below localhost too, but not every resolver
// keeps to it, Go's own among them: such a name may be asked from the network.
func IsLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// NoRedirects returns a copy of hc that returns a 3xx response to its caller. A
// followed 307 would replay the body, and with it the credentials, to whatever
// origin the response names.
func NoRedirects(hc *http.Client) *http.Client {
	if hc == nil {
		hc = http.DefaultClient
	}
	c := *hc
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// ReadBody reads the whole body, up to [MaxBody], and closes it.
func ReadBody(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	// The buffer is preallocated from Content-Length, up to the limit.
	room := min(max(resp.ContentLength, 0), MaxBody) + bytes.MinRead
	b := bytes.NewBuffer(make([]byte, 0, room))
	_, err := b.ReadFrom(io.LimitReader(resp.Body, MaxBody+1))
	if b.Len() > MaxBody {
		return nil, ErrTooLarge
	}
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// IsJSON reports whether the response says that it is JSON: application/json or a
// type with the +json suffix (RFC 6839 §3.1).
func IsJSON(h http.Header) bool {
	mt, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) { // a parameter does not matter
		return false
	}
	return mt == "application/json" || strings.HasSuffix(mt, "+json")
}

// RequestID is the identifier that the server gave the exchange, to quote to
// its support: x-request-id, else x-server-trace-id. It is "" where there is
// none, and is cut at 128 characters; one of more than 4 KiB identifies nothing and is
// too long to be searched. The secrets of the request are taken out, in
// case the server echoes them there.
func RequestID(h http.Header, secrets ...string) string {
	for _, name := range []string{"X-Request-Id", "X-Server-Trace-Id"} {
		if len(h.Get(name)) > maxRequestID {
			continue
		}
		// Cleaned before it is cut: half a token would not be recognized.
		if id := strings.Map(printable, redact.Text(strings.Map(printable, h.Get(name)), secrets...)); id != "" {
			return id[:min(len(id), 128)]
		}
	}
	return ""
}

const maxRequestID = 4 << 10

func printable(r rune) rune {
	if r < 0x21 || r > 0x7e {
		return -1
	}
	return r
}
