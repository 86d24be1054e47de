package main

import (
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestQuickstart(t *testing.T) {
	for _, verbose := range []bool{false, true} {
		var out strings.Builder
		if err := run(t.Context(), &out, verbose); err != nil {
			t.Fatalf("%v after\n%s", err, out.String())
		}
		for _, want := range []string{
			"a copy of one is of no use without the key", "IAM tokens are not bound", "You logged in", "returned 200 OK", "13 hours later: a new IAM token", "25 days later", "so the server issued a new one, which was saved",
			"APPLICATION", "quickstart/1.0", "INSECURE_KEY_DPOP", "was revoked", "log in again",
			"Done: 1 login, 3 renewals (1 with a new refresh token) and 1 revocation",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("verbose=%v: no %q in\n%s", verbose, want, out.String())
			}
		}
		if strings.Contains(out.String(), "POST /oauth/token refresh_token → 200") != verbose {
			t.Errorf("verbose=%v: requests are shown wrongly:\n%s", verbose, out.String())
		}
		// IAM tokens, refresh tokens, proofs, PEM.
		if secret := regexp.MustCompile(`\br?t1\.|\beyJ|BEGIN|code=|state=`).FindString(out.String()); secret != "" {
			t.Errorf("a secret (%s…) is on the screen", secret)
		}
	}
}
