package refreshtoken_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// endpoints is the list of an API whose parts are all at one address.
func endpoints(address string) string {
	return fmt.Sprintf(`{"endpoints":[{"id":"compute","address":"compute.example:443"},{"id":"iam","address":%q},{"id":"operation","address":%q}]}`, address, address)
}

// cloud answers for everything: GET /endpoints leads back to itself.
func cloud(t *testing.T) *server {
	t.Helper()
	return serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endpoints":
			answerJSON(w, http.StatusOK, endpoints(r.Host))
		case "/iam/v1/refreshTokens":
			answerJSON(w, http.StatusOK, `{"refreshTokens":[{"id":"aje1"}]}`)
		default:
			answerJSON(w, http.StatusOK, `{"id":"ajo1","done":true,"response":{}}`)
		}
	})
}

func (s *server) count(path string) int {
	n := 0
	for _, r := range s.seen() {
		if r.path == path {
			n++
		}
	}
	return n
}

func TestDiscovery(t *testing.T) {
	s := cloud(t)
	d := refreshtoken.NewDiscovery(s.Client(), s.URL, refreshtoken.WithUserAgent("mycli/1.2.0"), refreshtoken.WithTraceID("trace-7"))
	for range 2 { // clients
		hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", "Bearer t1.x")
			return s.Client().Transport.RoundTrip(r)
		})}
		c := refreshtoken.NewClient(hc, refreshtoken.WithDiscovery(d))
		for range 2 {
			if tokens, err := list(c, refreshtoken.ListOptions{}); err != nil || len(tokens) != 1 {
				t.Fatalf("got %v and %v", tokens, err)
			}
			if _, err := c.Operation(t.Context(), "ajo1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := s.seen()[0]
	if first.path != "/endpoints" || s.count("/endpoints") != 1 || len(s.seen()) != 9 {
		t.Errorf("%d of %d requests for endpoints, the first for %s", s.count("/endpoints"), len(s.seen()), first.path)
	}
	if auth := first.header.Get("Authorization"); auth != "" {
		t.Errorf("a token was sent for what is there for everybody: %s", auth)
	}
	if first.header.Get("User-Agent") != "mycli/1.2.0" || first.header.Get("X-Client-Trace-Id") != "trace-7" {
		t.Errorf("got the header %v", first.header)
	}
	host := strings.TrimPrefix(s.URL, "http://")
	if got, err := d.Endpoints(t.Context()); err != nil || got != (refreshtoken.Endpoints{IAM: host, Operation: host}) {
		t.Errorf("got %+v and %v", got, err)
	}
}

func TestSettingsWinOverDiscovery(t *testing.T) {
	found, set := cloud(t), cloud(t)
	d := refreshtoken.NewDiscovery(nil, found.URL)
	c := refreshtoken.NewClient(set.Client(), refreshtoken.WithDiscovery(d), refreshtoken.WithEndpoint(set.URL))
	if _, err := list(c, refreshtoken.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Operation(t.Context(), "ajo1"); err != nil {
		t.Fatal(err)
	}
	if set.count("/iam/v1/refreshTokens") != 1 || set.count("/operations/ajo1") != 0 || found.count("/operations/ajo1") != 1 {
		t.Errorf("with one setting: %d and %d requests", len(set.seen()), len(found.seen()))
	}
	before := len(found.seen())
	c = refreshtoken.NewClient(set.Client(), refreshtoken.WithDiscovery(refreshtoken.NewDiscovery(nil, found.URL)),
		refreshtoken.WithEndpoint(set.URL), refreshtoken.WithOperationEndpoint(set.URL))
	if _, err := c.Operation(t.Context(), "ajo1"); err != nil {
		t.Fatal(err)
	}
	if len(found.seen()) != before || set.count("/operations/ajo1") != 1 {
		t.Error("with both settings, an endpoint was looked up")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestDiscoveryPageByPage(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if want := map[int]string{1: "", 2: "p2"}[n]; r.URL.Query().Get("pageToken") != want {
			t.Errorf("request %d asks for page %q", n, r.URL.Query().Get("pageToken"))
		}
		answerJSON(w, http.StatusOK, map[int]string{
			1: `{"endpoints":[{"id":"iam","address":"127.0.0.1:1"}],"nextPageToken":"p2"}`,
			2: `{"endpoints":[{"id":"operation","address":"127.0.0.1:2"},{"id":"iam","address":"127.0.0.1:3"}],"nextPageToken":"p3"}`,
		}[n])
	})
	got, err := refreshtoken.NewDiscovery(s.Client(), s.URL).Endpoints(t.Context())
	if want := (refreshtoken.Endpoints{IAM: "127.0.0.1:1", Operation: "127.0.0.1:2"}); err != nil || got != want {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
	if len(s.seen()) != 2 {
		t.Errorf("%d requests, though all was found after 2", len(s.seen()))
	}
}

func TestDiscoveryFails(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		want       string
		requests   int
	}{
		{"an endpoint is missing", `{"endpoints":[{"id":"iam","address":"127.0.0.1:1"}]}`, 200, `the endpoint "operation" is not in the list`, 1},
		{"endless pages", `{"nextPageToken":"again"}`, 200, `the endpoint "iam" is not in the list`, 20},
		{"not a loopback address, without TLS", endpoints("10.0.0.1:1"), 200, "uses http to 10.0.0.1", 1},
		{"a path", endpoints("127.0.0.1:1/path"), 200, "not host:port", 1},
		{"no port", endpoints("127.0.0.1"), 200, "not host:port", 1},
		{"user information", endpoints("user:password@127.0.0.1:1"), 200, "user information", 1},
		{"not an object", `[]`, 200, "not an object", 1},
		{"a list of texts", `{"endpoints":["iam"]}`, 200, "endpoints[0]: it is not an object", 1},
		{"an address of another type", `{"endpoints":[{"id":"iam","address":5}]}`, 200, "address is not a string", 1},
		{"a refusal", `{"code":7,"message":"no"}`, 403, "PERMISSION_DENIED: no", 1},
		{"unavailable", `{"code":14}`, 503, "UNAVAILABLE", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(c.status, c.body))
			d := refreshtoken.NewDiscovery(s.Client(), s.URL, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond, Max: time.Millisecond}))
			_, err := list(refreshtoken.NewClient(s.Client(), refreshtoken.WithDiscovery(d)), refreshtoken.ListOptions{})
			if err == nil {
				t.Fatal("no error")
			}
			wantText(t, err.Error(), "refreshtoken: Endpoints: ", c.want)
			if c.status == 200 {
				as[*refreshtoken.ResponseError](t, err)
			} else {
				as[*refreshtoken.APIError](t, err)
			}
			if n := len(s.seen()); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
		})
	}
}

func TestDiscoveryRefuses(t *testing.T) {
	for _, d := range []*refreshtoken.Discovery{
		refreshtoken.NewDiscovery(nil, ""),
		refreshtoken.NewDiscovery(nil, "http://api.cloud.yandex.net"),
		refreshtoken.NewDiscovery(nil, "api.cloud.yandex.net?x=1"),
		refreshtoken.NewDiscovery(nil, "user@api.cloud.yandex.net"),
		refreshtoken.NewDiscovery(nil, "api.cloud.yandex.net", refreshtoken.WithEndpoint("https://iam.example")),
		refreshtoken.NewDiscovery(nil, "api.cloud.yandex.net", refreshtoken.WithUserAgent("a\nb")),
		refreshtoken.NewDiscovery(nil, "api.cloud.yandex.net", refreshtoken.WithDiscovery(refreshtoken.NewDiscovery(nil, "x.example"))),
	} {
		_, err := d.Endpoints(t.Context())
		as[*refreshtoken.ArgumentError](t, err)
	}
	c := refreshtoken.New(&fakeTransport{}, refreshtoken.WithDiscovery(refreshtoken.NewDiscovery(nil, "api.cloud.yandex.net")))
	_, err := c.Operation(t.Context(), "ajo1")
	if e := as[*refreshtoken.ArgumentError](t, err); e.Field != "WithDiscovery" {
		t.Errorf("got %v", err)
	}
}

// api is an API without a network, for tests in a bubble of testing/synctest.
func api(answer func(n int) (status int, body string)) (*http.Client, *atomic.Int64) {
	var asked atomic.Int64
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		status, body := answer(int(asked.Add(1)))
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})}, &asked
}

func TestDiscoveryAsksAgainAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := false
		hc, asked := api(func(n int) (int, string) {
			if down {
				return http.StatusForbidden, `{"code":7}`
			}
			return http.StatusOK, endpoints(fmt.Sprintf("iam%d.example:443", n))
		})
		d := refreshtoken.NewDiscovery(hc, "api.example")
		for i, step := range []struct {
			after time.Duration
			down  bool
			want  string
			asked int64
		}{
			{0, false, "iam1.example:443", 1},
			{59 * time.Minute, false, "iam1.example:443", 1},
			{time.Minute, false, "iam2.example:443", 2},
			{time.Hour, true, "iam2.example:443", 3},
			{59 * time.Second, false, "iam2.example:443", 3},
			{time.Second, false, "iam4.example:443", 4},
		} {
			time.Sleep(step.after)
			down = step.down
			got, err := d.Endpoints(t.Context())
			if err != nil || got.IAM != step.want || asked.Load() != step.asked {
				t.Errorf("step %d: got %+v and %v after %d requests", i, got, err, asked.Load())
			}
		}
	})
}

func TestDiscoveryAsksOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		hc, asked := api(func(int) (int, string) {
			<-gate
			return http.StatusOK, endpoints("iam.example:443")
		})
		d := refreshtoken.NewDiscovery(hc, "https://api.example")
		done := make(chan error, 10)
		for range cap(done) {
			go func() {
				_, err := d.Endpoints(t.Context())
				done <- err
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Endpoints(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("one who does not wait: got %v", err)
		}
		close(gate)
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}
