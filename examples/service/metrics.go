package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// metrics are what became of the renewals, in the text format of Prometheus
// ("Exposition formats", version 0.0.4). That is a few lines of text; a client
// library would be larger than the service.
type metrics struct {
	clock func() time.Time

	mu        sync.Mutex
	renewals  map[renewal]int
	seconds   float64 // that all renewals took
	rotations int
	retries   int
	rejected  int
	expiry    time.Time // of the token that is served; zero if there is none
	unsaved   bool
}

// renewal are the labels of a renewal's counter.
type renewal struct{ outcome, cause string }

func newMetrics(clock func() time.Time) *metrics {
	m := &metrics{clock: clock, renewals: make(map[renewal]int)}
	// What can be expected is there from the start, so that the first increase
	// shows.
	for _, outcome := range []string{"renewed", "adopted"} {
		for _, cause := range []oauth.Cause{oauth.CauseStale, oauth.CauseInvalid, oauth.CauseRejected} {
			m.renewals[renewal{outcome, string(cause)}] = 0
		}
	}
	return m
}

// observe is an oauth.Config.Observer.
func (m *metrics) observe(e oauth.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Kind {
	case oauth.EventRenewed, oauth.EventAdopted:
		m.count(string(e.Kind), e)
		m.expiry = e.Expiry
		if e.Rotated {
			m.rotations++
		}
	case oauth.EventRenewFailed:
		m.count(e.ErrorKind(), e)
	case oauth.EventRetry:
		m.retries++
	case oauth.EventInvalidated:
		m.rejected++
		m.expiry = time.Time{}
	case oauth.EventLogin:
		m.expiry = e.Expiry
	case oauth.EventLogout:
		m.expiry, m.unsaved = time.Time{}, false
	case oauth.EventSaveFailed:
		m.unsaved = true
	case oauth.EventSaved:
		m.unsaved = false
	}
}

func (m *metrics) count(outcome string, e oauth.Event) {
	m.renewals[renewal{outcome, string(e.Cause)}]++
	m.seconds += e.Duration.Seconds()
}

// ServeHTTP answers a scrape.
func (m *metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(m.text())
}

func (m *metrics) text() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	head := func(name, kind, help string) { fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	one := func(name, kind, help string, value any) {
		head(name, kind, help)
		fmt.Fprintf(&b, "%s %v\n", name, value)
	}

	head("ycauth_renewals_total", "counter", "Renewals of the access token: renewed by the server, adopted from another process, or the kind of error; and why they were begun.")
	all := 0
	keys := slices.SortedFunc(maps.Keys(m.renewals), func(a, b renewal) int {
		return cmp.Or(cmp.Compare(a.outcome, b.outcome), cmp.Compare(a.cause, b.cause))
	})
	for _, k := range keys {
		// Both are words of package oauth: nothing in them needs escaping.
		fmt.Fprintf(&b, "ycauth_renewals_total{outcome=%q,cause=%q} %d\n", k.outcome, k.cause, m.renewals[k])
		all += m.renewals[k]
	}
	head("ycauth_renewal_duration_seconds", "summary", "How long renewals took, with all their attempts.")
	fmt.Fprintf(&b, "ycauth_renewal_duration_seconds_sum %v\nycauth_renewal_duration_seconds_count %d\n", m.seconds, all)
	one("ycauth_rotations_total", "counter", "Renewals that brought a new refresh token.", m.rotations)
	one("ycauth_retries_total", "counter", "Attempts of a token request that were followed by another one.", m.retries)
	one("ycauth_rejected_tokens_total", "counter", "Access tokens that the API refused before their time.", m.rejected)
	if !m.expiry.IsZero() {
		one("ycauth_token_expires_in_seconds", "gauge", "Seconds until the access token expires; negative since it has. Not there without a token.", m.expiry.Sub(m.clock()).Seconds())
	}
	unsaved := 0
	if m.unsaved {
		unsaved = 1
	}
	one("ycauth_session_unsaved", "gauge", "1 while the newest session is in memory only, because it could not be saved: a crash would lose it.", unsaved)
	return b.Bytes()
}
