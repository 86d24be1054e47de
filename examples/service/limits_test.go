package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// soon is the limit of what these tests wait for.
const soon = 100 * time.Millisecond

// TestEveryWaitIsLimited: a limit that is 0 is none.
func TestEveryWaitIsLimited(t *testing.T) {
	cfg, err := parseConfig([]string{"-api", "https://api.example/"}, func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(cfg.limits)
	for i := range v.NumField() {
		if v.Field(i).Int() <= 0 {
			t.Errorf("%s has no limit", v.Type().Field(i).Name)
		}
	}
	if cfg.limits.read >= cfg.drain || cfg.limits.api >= cfg.limits.write {
		t.Errorf("the limits do not fit together: %+v, drain %v", cfg.limits, cfg.drain)
	}
	if cfg.announce <= 0 {
		t.Error("probes do not learn of a stop")
	}
}

// TestSlowClients: nobody holds a connection for ever, and a stop succeeds
// although a request is not there as a whole.
func TestSlowClients(t *testing.T) {
	for name, request := range map[string]string{
		"nothing":     "",
		"half a head": "GET / HTTP/1.1\r\nHost: x\r\n",
		"slow body":   "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx",
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t, newIAM(t))
			cfg.limits.read = soon
			r := start(t, cfg)
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			r.want(t, "/healthz", 200, "ok") // the other one is accepted by now
			began := time.Now()
			r.stop()
			if err := <-r.ended; err != nil {
				t.Error(err)
			}
			if waited := time.Since(began); waited > patience/2 {
				t.Errorf("the stop took %v", waited)
			}
		})
	}
	t.Run("reader that does not read", func(t *testing.T) {
		var asked atomic.Int32
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			_, _ = w.Write(make([]byte, maxAnswer))
		}))
		defer api.Close()
		cfg := newConfig(t, newIAM(t))
		cfg.api, cfg.limits.write, cfg.drain = api.URL, soon, patience/4
		r := start(t, cfg)
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		for range 64 { // one after the other, more than the buffers between hold
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				break
			}
		}
		for last := int32(-1); asked.Load() != last; time.Sleep(3 * soon) {
			last = asked.Load() // until the buffers between are full
		}
		began := time.Now()
		r.stop()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited > patience/2 {
			t.Errorf("the stop took %v", waited)
		}
	})
}

// TestSlowAPI: a request of the service's own ends as well.
func TestSlowAPI(t *testing.T) {
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hanging.Close()
	cfg := newConfig(t, newIAM(t))
	cfg.api, cfg.limits.api = hanging.URL, soon
	r := start(t, cfg)
	defer r.end(t)
	r.want(t, "/", 502, "not reached")
}

// TestLargeResponse: the API does not decide how much is relayed.
func TestLargeResponse(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, maxAnswer+1000))
	}))
	defer api.Close()
	cfg := newConfig(t, newIAM(t))
	cfg.api = api.URL
	r := start(t, cfg)
	defer r.end(t)
	status, body, err := get(bounded(t), r.url+"/")
	if err != nil || status != 200 || len(body) != maxAnswer {
		t.Errorf("%d with %d bytes, %v", status, len(body), err)
	}
}

// TestProbeDoesNotHang: a probe that waits for a renewal gives up before its own
// time is up.
func TestProbeDoesNotHang(t *testing.T) {
	iam := newIAM(t)
	cfg := newConfig(t, iam)
	g := newGate()
	cfg.iamHTTP, cfg.limits.ready = &http.Client{Transport: g}, soon
	r := start(t, cfg)
	iam.Advance(13 * time.Hour)
	r.want(t, "/readyz", 503)
	close(g.open)
	r.want(t, "/", 200)
	r.end(t)
}

// TestProbesLearnOfTheStop: before the port is closed, requests are served, and
// probes are told.
func TestProbesLearnOfTheStop(t *testing.T) {
	cfg := newConfig(t, newIAM(t))
	cfg.announce = 3 * time.Second
	r := start(t, cfg)
	r.want(t, "/readyz", 200)
	r.stop()
	for end := time.Now().Add(patience / 2); ; time.Sleep(time.Millisecond) {
		status, body, err := get(bounded(t), r.url+"/readyz")
		if err != nil {
			t.Fatal(err)
		}
		if status == 503 && body == "stopping\n" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d %s", status, body)
		}
	}
	r.want(t, "/", 200, `"subject"`)
	r.want(t, "/healthz", 200, "ok")
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

// TestNoRenewalBeginsAtTheStop: a renewal that begins while the service stops would
// make the stop longer, and may be killed.
func TestNoRenewalBeginsAtTheStop(t *testing.T) {
	iam := newIAM(t)
	cfg := newConfig(t, iam)
	cfg.announce = 2 * time.Second
	r := start(t, cfg)
	r.want(t, "/", 200, `"subject"`)
	iam.ResetRequests()
	r.stop()
	for end := time.Now().Add(patience / 2); ; time.Sleep(time.Millisecond) {
		if status, _, err := get(bounded(t), r.url+"/readyz"); err != nil {
			t.Fatal(err)
		} else if status == 503 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the service does not stop")
		}
	}
	time.Sleep(200 * time.Millisecond)
	iam.Advance(11 * time.Hour) // stale, and good
	for range 3 {
		r.want(t, "/", 200, `"subject"`)
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if n := iam.Count(iamtest.EndpointToken); n > 0 {
		t.Errorf("%d token requests", n)
	}
}
