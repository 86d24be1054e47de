package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
)

// A call is what a client of client.mjs received in the end.
type call struct {
	Name       string
	Status     int
	Body       string
	Attempts   int
	Challenges []challenge
}

type challenge struct{ Scheme, Error, Algs string }

// replays is the memory of proofs that the replicas share.
type replays struct{ known sync.Map }

func (r *replays) Add(_ context.Context, id string, _ time.Duration) (bool, error) {
	_, known := r.known.LoadOrStore(id, true)
	return !known, nil
}

// startReplicas returns the URL of resource servers that take turns.
func startReplicas(t *testing.T, count int, nonces func() *dpop.NonceIssuer) string {
	t.Helper()
	var replicas []http.Handler
	var requests atomic.Int64
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		replicas[int(requests.Add(1))%count].ServeHTTP(w, r)
	}))
	base := "http://" + front.Listener.Addr().String()
	shared := new(replays)
	for range count {
		s := &dpop.ResourceServer{
			BaseURL:  base,
			Bearer:   true,
			Verifier: &dpop.Verifier{Replays: shared},
			Nonces:   nonces(),
			Lookup: func(_ context.Context, token string) (dpop.TokenInfo, error) {
				jkt, bound := strings.CutPrefix(token, "at.")
				if !bound && token != "plain" {
					return dpop.TokenInfo{}, dpop.ErrInvalidToken
				}
				if !bound {
					jkt = ""
				}
				return dpop.TokenInfo{Thumbprint: jkt}, nil
			},
		}
		replicas = append(replicas, s.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Method)
		})))
	}
	front.Start()
	t.Cleanup(front.Close)
	return base
}

// TestResourceServer: clients that we did not write pass dpop.ResourceServer, with a nonce
// after one challenge, and read its challenges.
func TestResourceServer(t *testing.T) {
	t.Parallel()
	client := filepath.Join(installed(t), "client.mjs")
	key := make([]byte, 32)
	rand.Read(key)
	for _, tt := range []struct {
		name     string
		replicas int
		nonces   func() *dpop.NonceIssuer
	}{
		{"no nonces", 1, func() *dpop.NonceIssuer { return nil }},
		{"two replicas with nonces", 2, func() *dpop.NonceIssuer {
			n, err := dpop.NewNonceIssuer(24*time.Hour, key)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := startReplicas(t, tt.replicas, tt.nonces)
			ctx, cancel := context.WithTimeout(t.Context(), startTime)
			defer cancel()
			cmd := exec.CommandContext(ctx, "node", client, url+"/things/%7Eone?page=2#part")
			cmd.WaitDelay = stopTime
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("node: %v\n%s", err, stderr.String())
			}
			var calls []call
			if err := json.Unmarshal(out, &calls); err != nil {
				t.Fatal(err)
			}
			demanded := tt.nonces() != nil
			if want := 4*2 + 5 + 4*3; len(calls) != want {
				t.Fatalf("%d calls, want %d", len(calls), want)
			}
			for _, c := range calls {
				checkCall(t, c, demanded)
			}
		})
	}
}

func checkCall(t *testing.T, c call, nonces bool) {
	t.Helper()
	const algs = "ES256 ES384 ES512 EdDSA Ed25519 PS256 RS256"
	want := call{Name: c.Name, Status: http.StatusUnauthorized, Attempts: 1}
	switch method := c.Name[strings.LastIndexByte(c.Name, ' ')+1:]; {
	case method == http.MethodGet || method == http.MethodPost:
		want.Status, want.Body = http.StatusOK, method
		if nonces && method == http.MethodGet { // the first call of a client
			want.Attempts = 2
		}
	case method == "replay":
		want.Body = "the same proof was sent before (jti)\n"
	case c.Name == "unbound":
		want.Status, want.Body = http.StatusOK, http.MethodGet
	case c.Name == "downgraded":
		want.Challenges = []challenge{{"bearer", "invalid_token", ""}, {"dpop", "", algs}}
	default:
		want.Challenges = []challenge{{"dpop", "invalid_token", algs}, {"bearer", "", ""}}
		if nonces && c.Name == "stolen" {
			want.Attempts = 2
		}
	}
	if c.Status != want.Status || c.Body != want.Body || c.Attempts != want.Attempts || !slices.Equal(c.Challenges, want.Challenges) {
		t.Errorf("got %+v, want %+v", c, want)
	}
}
