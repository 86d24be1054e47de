package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// A wiretap is on both ends of a program: as an http.RoundTripper it notes every
// credential that passes, and it hears what the program says. The two must have
// nothing in common.
type wiretap struct {
	mu          sync.Mutex
	credentials map[string]string // by value: what it is
	said        map[string]string // by kind: all of it
}

func newWiretap() *wiretap {
	return &wiretap{credentials: make(map[string]string), said: make(map[string]string)}
}

// note remembers a credential.
func (w *wiretap) note(what, value string) {
	if value == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.credentials[value] = what
}

// RoundTrip implements http.RoundTripper, without connections to keep.
func (w *wiretap) RoundTrip(req *http.Request) (*http.Response, error) {
	w.note("proof", req.Header.Get("DPoP"))
	_, credentials, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	w.note("Authorization", credentials)
	if form := formOf(req); form != nil {
		for _, name := range []string{"code", "code_verifier", "refresh_token", "token", "client_secret", "client_assertion", "device_code", "state"} {
			w.note(name, form.Get(name))
		}
	}
	resp, err := plain.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var members map[string]any
	if json.Unmarshal(body, &members) == nil {
		for _, name := range []string{"access_token", "refresh_token", "id_token", "device_code"} {
			value, _ := members[name].(string)
			w.note(name, value)
		}
	}
	return resp, nil
}

// formOf is the body of a request with a form, or nil.
func formOf(req *http.Request) url.Values {
	if req.GetBody == nil || req.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil
	}
	form, err := url.ParseQuery(string(data))
	if err != nil {
		return nil
	}
	return form
}

// Write hears a log line.
func (w *wiretap) Write(line []byte) (int, error) {
	w.hear("log line", string(line))
	return len(line), nil
}

// hear takes note of what was said: a text, or a value that a careless caller
// would print, with the verbs that are used for it. Of an error it hears
// everything that it wraps.
func (w *wiretap) hear(kind string, v any) {
	if v == nil {
		return
	}
	text, ok := v.(string)
	if !ok {
		text = fmt.Sprintf("%v\n%+v\n%#v", v, v, v)
	}
	w.mu.Lock()
	w.said[kind] += text + "\n"
	w.mu.Unlock()
	switch e := v.(type) {
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			w.hear(kind, err)
		}
	case error:
		if err := errors.Unwrap(e); err != nil {
			w.hear(kind, err)
		}
	}
}

// audit looks for the credentials in what was said.
func (w *wiretap) audit(t *testing.T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kinds := make(map[string]int)
	for value, what := range w.credentials {
		kinds[what]++
		for form, text := range map[string]string{
			"as it is":        value,
			"form-urlencoded": url.QueryEscape(value),
			"in base64":       base64.StdEncoding.EncodeToString([]byte(value)),
		} {
			for kind, said := range w.said {
				if strings.Contains(said, text) {
					t.Errorf("a %s (%s) was said in a %s", what, form, kind)
				}
			}
		}
	}
	// Without these the search would prove nothing.
	for _, what := range []string{"proof", "access_token", "refresh_token", "code", "code_verifier", "state"} {
		if kinds[what] == 0 {
			t.Errorf("no %s has passed", what)
		}
	}
	for _, kind := range []string{"event", "log line", "session", "page"} {
		if w.said[kind] == "" {
			t.Errorf("no %s was heard", kind)
		}
	}
	t.Logf("%d credentials, %d bytes of what was said", len(w.credentials), len(fmt.Sprint(w.said)))
}

// An interceptor is an http.RoundTripper that does something before a request
// goes on to the next one.
type interceptor func(req *http.Request, next http.RoundTripper) (*http.Response, error)

// into puts the interceptor before the transport of a client.
func (i interceptor) into(hc *http.Client) *http.Client {
	return &http.Client{Transport: chained{i, hc.Transport}}
}

type chained struct {
	first interceptor
	next  http.RoundTripper
}

func (c chained) RoundTrip(req *http.Request) (*http.Response, error) { return c.first(req, c.next) }
