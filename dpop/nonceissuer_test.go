package dpop

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func nonceKey(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func newIssuer(tb testing.TB, period time.Duration, keys ...[]byte) *NonceIssuer {
	tb.Helper()
	n, err := NewNonceIssuer(period, keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func TestNewNonceIssuer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		period time.Duration
		keys   [][]byte
		want   string
	}{
		{"default", 0, [][]byte{nonceKey(1)}, ""},
		{"shortest period", time.Second, [][]byte{nonceKey(1), nonceKey(2)}, ""},
		{"short period", time.Second - 1, [][]byte{nonceKey(1)}, "period"},
		{"negative period", -time.Minute, [][]byte{nonceKey(1)}, "period"},
		{"no key", 0, nil, "no key"},
		{"nil key", 0, [][]byte{nil}, "key 0"},
		{"short key", 0, [][]byte{nonceKey(1), make([]byte, 31)}, "key 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := NewNonceIssuer(tt.period, tt.keys...)
			if tt.want == "" && err == nil && n.Check(n.Nonce()) {
				return
			}
			if err == nil || tt.want == "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// The key is copied, and no verb prints it.
func TestNonceIssuerKey(t *testing.T) {
	key := []byte("hunter2hunter2hunter2hunter2hunter2")
	n := newIssuer(t, 0, key)
	nonce := n.Nonce()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, v := range []any{n, *n, struct{ n NonceIssuer }{*n}, &ResourceServer{Nonces: n}} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "hunter2") || strings.Contains(text, fmt.Sprintf("%x", "hunter2")) || strings.Contains(text, "104 117 110") {
				t.Errorf("%s of %T prints %s", verb, v, text)
			}
		}
	}
	if got := n.LogValue().String(); got != "dpop.NonceIssuer" {
		t.Errorf("LogValue %q", got)
	}
	clear(key)
	if !n.Check(nonce) {
		t.Error("the caller's slice is used")
	}
}

// A nonce is accepted in its period and in the next one.
func TestNonceIssuerPeriods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const period = time.Minute
		n := newIssuer(t, period, nonceKey(1))
		time.Sleep(period - time.Duration(time.Now().UnixNano())%period) // to the start of one
		first := n.Nonce()
		if len(first) != 22 || !validNonce(first) {
			t.Errorf("nonce %q", first)
		}
		for _, step := range []struct {
			after                    time.Duration
			same, accepted, outdated bool
		}{
			{0, true, true, false},
			{period - 1, true, true, false},
			{1, false, true, true},
			{period - 1, false, true, true},
			{1, false, false, true},
			{period, false, false, true},
		} {
			time.Sleep(step.after)
			if got := n.Nonce() == first; got != step.same {
				t.Errorf("%v later the same nonce is issued: %v", step.after, got)
			}
			accepted, outdated := n.check(first)
			if accepted != step.accepted || outdated != step.outdated || n.Check(first) != accepted {
				t.Errorf("%v later: accepted %v, outdated %v", step.after, accepted, outdated)
			}
		}
		for _, bad := range []string{"", "x", first + "x", first[:21], strings.ToUpper(first)} {
			if n.Check(bad) {
				t.Errorf("%q is accepted", bad)
			}
		}
	})
}

// Replicas with one key and period agree, although their clocks differ by less than half a
// period: every nonce is good for half a period, at each of them.
func TestNonceIssuerClocks(t *testing.T) {
	const period = time.Minute
	base := testTime.Truncate(period)
	for _, ahead := range []time.Duration{-period / 2, -time.Second, 0, time.Second, period / 2} {
		a, b := newIssuer(t, period, nonceKey(1)), newIssuer(t, period, nonceKey(1))
		for at := time.Duration(0); at < period; at += period / 12 {
			issued := base.Add(at)
			a.now = func() time.Time { return issued.Add(ahead) }
			nonce := a.Nonce()
			for d := time.Duration(0); d < period/2; d += period / 12 {
				b.now = func() time.Time { return issued.Add(d) }
				if !b.Check(nonce) {
					t.Errorf("ahead by %v, issued %v after the start of a period: not accepted after %v", ahead, at, d)
				}
			}
			b.now = func() time.Time { return issued.Add(2*period + ahead.Abs()) }
			if b.Check(nonce) {
				t.Errorf("ahead by %v, issued %v after the start of a period: accepted for too long", ahead, at)
			}
		}
	}
	// A client that has the nonce of a replica ahead is not told to go back to an older one.
	n := newIssuer(t, period, nonceKey(1))
	n.now = at(base.Add(period))
	nonce := n.Nonce()
	n.now = at(base)
	if accepted, outdated := n.check(nonce); !accepted || outdated {
		t.Errorf("accepted %v, outdated %v", accepted, outdated)
	}
}

func TestNonceIssuerKeys(t *testing.T) {
	old, both, next := newIssuer(t, 0, nonceKey(1)), newIssuer(t, 0, nonceKey(1), nonceKey(2)), newIssuer(t, 0, nonceKey(2), nonceKey(1))
	only := newIssuer(t, 0, nonceKey(2))
	other := newIssuer(t, time.Hour, nonceKey(1))
	now := at(testTime)
	for _, n := range []*NonceIssuer{old, both, next, only, other} {
		n.now = now
	}
	if both.Nonce() != old.Nonce() || next.Nonce() != only.Nonce() {
		t.Error("the first key is not the one that issues")
	}
	if !both.Check(only.Nonce()) || !next.Check(old.Nonce()) || old.Check(only.Nonce()) || only.Check(old.Nonce()) {
		t.Error("nonces of the other keys are not what is accepted")
	}
	if _, outdated := next.check(old.Nonce()); !outdated {
		t.Error("a client keeps the nonce of the old key")
	}
	if old.Check(other.Nonce()) {
		t.Error("the nonce of another period is accepted")
	}
}
