package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// Each event, and the lines of the next scrape that it changes.
func TestMetrics(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := newMetrics(func() time.Time { return now })
	for _, step := range []struct {
		name  string
		event oauth.Event
		want  []string
		gone  string
	}{
		{"login", oauth.Event{Kind: oauth.EventLogin, Expiry: now.Add(time.Hour)}, []string{"ycauth_token_expires_in_seconds 3600"}, ""},
		{"renewed", oauth.Event{Kind: oauth.EventRenewed, Cause: oauth.CauseStale, Duration: 1500 * time.Millisecond, Rotated: true, Expiry: now.Add(12 * time.Hour)}, []string{
			`ycauth_renewals_total{outcome="renewed",cause="stale"} 1`, "ycauth_rotations_total 1", "ycauth_token_expires_in_seconds 43200",
			"ycauth_renewal_duration_seconds_sum 1.5", "ycauth_renewal_duration_seconds_count 1",
		}, ""},
		{"not saved", oauth.Event{Kind: oauth.EventSaveFailed, Err: errors.New("disk full")}, []string{"ycauth_session_unsaved 1"}, "disk full"},
		{"saved", oauth.Event{Kind: oauth.EventSaved}, []string{"ycauth_session_unsaved 0"}, ""},
		{"retry", oauth.Event{Kind: oauth.EventRetry, Attempt: 1, Err: errors.New("x")}, []string{"ycauth_retries_total 1"}, ""},
		{"failed", oauth.Event{Kind: oauth.EventRenewFailed, Cause: oauth.CauseInvalid, Duration: time.Second, Err: oauth.ErrOutcomeUnknown}, []string{
			`ycauth_renewals_total{outcome="outcome_unknown",cause="invalid"} 1`, "ycauth_renewal_duration_seconds_sum 2.5", "ycauth_renewal_duration_seconds_count 2",
		}, ""},
		{"rejected", oauth.Event{Kind: oauth.EventInvalidated}, []string{"ycauth_rejected_tokens_total 1"}, "expires_in"},
		{"adopted", oauth.Event{Kind: oauth.EventAdopted, Cause: oauth.CauseRejected, Expiry: now.Add(-time.Second)}, []string{
			`ycauth_renewals_total{outcome="adopted",cause="rejected"} 1`, "ycauth_token_expires_in_seconds -1",
		}, ""},
		{"not saved again", oauth.Event{Kind: oauth.EventSaveFailed}, []string{"ycauth_session_unsaved 1"}, ""},
		{"logout", oauth.Event{Kind: oauth.EventLogout}, []string{"ycauth_session_unsaved 0"}, "expires_in"},
	} {
		t.Run(step.name, func(t *testing.T) {
			m.observe(step.event)
			text := string(m.text())
			for _, want := range step.want {
				if !strings.Contains(text, want+"\n") {
					t.Errorf("no %s in\n%s", want, text)
				}
			}
			if step.gone != "" && strings.Contains(text, step.gone) {
				t.Errorf("%s in\n%s", step.gone, text)
			}
			checkFormat(t, text)
		})
	}
}

var sample = regexp.MustCompile(`^([a-z_]+)(\{[a-z]+="[a-z_]+"(,[a-z]+="[a-z_]+")*\})? -?[0-9]+(\.[0-9]+)?(e[-+][0-9]+)?$`)

// checkFormat wants each sample below the HELP and TYPE of its metric, once.
func checkFormat(t *testing.T, text string) {
	t.Helper()
	name, seen := "", make(map[string]bool)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, _, _ = strings.Cut(help, " ")
			continue
		}
		if strings.HasPrefix(line, "# TYPE "+name+" ") {
			continue
		}
		parts := sample.FindStringSubmatch(line)
		if parts == nil || strings.TrimSuffix(strings.TrimSuffix(parts[1], "_sum"), "_count") != name {
			t.Errorf("not a sample of %s: %s", name, line)
			continue
		}
		if seen[parts[1]+parts[2]] {
			t.Errorf("twice: %s", line)
		}
		seen[parts[1]+parts[2]] = true
	}
	if len(seen) < 12 {
		t.Errorf("only %d samples in\n%s", len(seen), text)
	}
}
