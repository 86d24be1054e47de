package main

import (
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDemo(t *testing.T) {
	var out strings.Builder
	if err := demo(t.Context(), &out); err != nil {
		t.Fatalf("%v after\n%s", err, out.String())
	}
	row := regexp.MustCompile(`(?m)^\S+  yc\.oauth\.public-sdk  INSECURE_KEY_DPOP$`)
	if n := len(row.FindAllString(out.String(), -1)); n != 2 {
		t.Errorf("%d refresh tokens on the screen, want one for each of two listings:\n%s", n, out.String())
	}
	if !strings.HasSuffix(out.String(), "log in again\n") {
		t.Errorf("no word of the end of the session:\n%s", out.String())
	}
	if secret := regexp.MustCompile(`\br?t1\.|\beyJ`).FindString(out.String()); secret != "" {
		t.Errorf("a secret (%s…) is on the screen", secret)
	}
}
