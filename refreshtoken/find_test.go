package refreshtoken_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

var march = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func clientOlderThan(t *testing.T, info string) refreshtoken.Rule {
	t.Helper()
	rule, err := refreshtoken.ClientOlderThan(info)
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

func TestRules(t *testing.T) {
	type token = refreshtoken.RefreshToken
	for _, c := range []struct {
		name  string
		rule  refreshtoken.Rule
		token token
		want  string
	}{
		{"unprotected", refreshtoken.Unprotected(), token{ProtectionLevel: refreshtoken.NoProtection}, "not bound to a key"},
		{"protected", refreshtoken.Unprotected(), token{ProtectionLevel: refreshtoken.InsecureKeyDPoP}, ""},
		{"a level of a newer API", refreshtoken.Unprotected(), token{ProtectionLevel: "42"}, ""},
		{"no level", refreshtoken.Unprotected(), token{ProtectionLevel: refreshtoken.ProtectionLevelUnspecified}, ""},
		{"stale", refreshtoken.NotUsedSince(march), token{LastUsedAt: march.Add(-1)}, "last used on 2026-02-28"},
		{"used since", refreshtoken.NotUsedSince(march), token{CreatedAt: march.AddDate(-1, 0, 0), LastUsedAt: march}, ""},
		{"never used", refreshtoken.NotUsedSince(march), token{CreatedAt: march.AddDate(0, -1, 0)}, "not used since it was created on 2026-02-01"},
		{"new", refreshtoken.NotUsedSince(march), token{CreatedAt: march}, ""},
		{"no times", refreshtoken.NotUsedSince(march), token{}, ""},
		{"old", refreshtoken.CreatedBefore(march), token{CreatedAt: march.Add(-1), LastUsedAt: march}, "created on 2026-02-28"},
		{"not old", refreshtoken.CreatedBefore(march), token{CreatedAt: march}, ""},
		{"no time of creation", refreshtoken.CreatedBefore(march), token{}, ""},
		{"both of two", refreshtoken.Any(refreshtoken.Unprotected(), refreshtoken.CreatedBefore(march)),
			token{ProtectionLevel: refreshtoken.NoProtection, CreatedAt: march.Add(-1)}, "not bound to a key and created on 2026-02-28"},
		{"one of two", refreshtoken.Any(refreshtoken.Unprotected(), refreshtoken.CreatedBefore(march)),
			token{ProtectionLevel: refreshtoken.NoProtection, CreatedAt: march}, "not bound to a key"},
		{"none of two", refreshtoken.Any(refreshtoken.Unprotected(), refreshtoken.CreatedBefore(march)),
			token{ProtectionLevel: refreshtoken.SecureKeyDPoP, CreatedAt: march}, ""},
		{"one of none", refreshtoken.Any(), token{ProtectionLevel: refreshtoken.NoProtection}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.rule(&c.token); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestClientOlderThan(t *testing.T) {
	for _, c := range []struct {
		least, info, want string
	}{
		{"yc/0.141.0", "yc/0.140.9", "from yc 0.140.9, older than 0.141.0"},
		{"yc/0.141.0", "yc/0.141.0", ""},
		{"yc/0.141.0", "yc/0.141.1", ""},
		{"yc/0.141.0", "yc/0.99.0", "from yc 0.99.0, older than 0.141.0"}, // not by the alphabet
		{"yc/0.141.0", "yc/1", ""},
		{"yc/0.141.0", "yc/0.141", ""},
		{"yc/0.141.0", "yc/0.0141", ""}, // a leading zero
		{"yc/1.0", "yc/99999999999999999999.0", ""},
		{"yc/99999999999999999999", "yc/1.0", "from yc 1.0, older than 99999999999999999999"},
		{"yc/0.141.0", "yc/0.141.0-beta1", "from yc 0.141.0-beta1, older than 0.141.0"},
		{"yc/0.141.0-beta1", "yc/0.141.0", ""},
		{"yc/0.141.0-beta2", "yc/0.141.0-beta1", ""}, // cannot tell
		{"yc/0.141.0", "yc/v0.140.0+build.7 linux/amd64", "from yc 0.140.0, older than 0.141.0"},
		{"yc/0.141.0", "ycc/0.1.0", ""},
		{"yc/0.141.0", "YC/0.1.0", ""},
		{"yc/0.141.0", "yc", ""},
		{"yc/0.141.0", "yc/", ""},
		{"yc/0.141.0", "yc/0.1.x", ""},
		{"yc/0.141.0", "yc/0..1", ""},
		{"yc/0.141.0", "yc/0.-1", ""},
		{"yc/0.141.0", "", ""},
	} {
		t.Run(c.least+" and "+c.info, func(t *testing.T) {
			if got := clientOlderThan(t, c.least)(&refreshtoken.RefreshToken{ClientInstanceInfo: c.info}); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	for _, info := range []string{"", "yc", "/1.0", "yc/latest", "yc/1..0"} {
		_, err := refreshtoken.ClientOlderThan(info)
		as[*refreshtoken.ArgumentError](t, err)
	}
}

func TestFind(t *testing.T) {
	s := pages(t, map[string]string{
		"": `{"refreshTokens":[
			{"id":"a","protectionLevel":"NO_PROTECTION","createdAt":"2026-01-02T00:00:00Z"},
			{"id":"b","protectionLevel":"SECURE_KEY_DPOP","createdAt":"2026-03-02T00:00:00Z"}],"nextPageToken":"2"}`,
		"2": `{"refreshTokens":[
			{"id":"c","protectionLevel":"NO_PROTECTION","createdAt":"2026-03-02T00:00:00Z"},
			{"id":"d","clientInstanceInfo":"yc/0.1.0"}],"nextPageToken":"gone"}`,
	})
	unprotected, stale, old := refreshtoken.Unprotected(), refreshtoken.NotUsedSince(march), clientOlderThan(t, "yc/0.141.0")
	for _, c := range []struct {
		name  string
		rules []refreshtoken.Rule
		want  string
	}{
		{"one rule", []refreshtoken.Rule{unprotected}, "a: not bound to a key; c: not bound to a key"},
		{"each rule narrows", []refreshtoken.Rule{unprotected, stale}, "a: not bound to a key, not used since it was created on 2026-01-02"},
		{"to nothing", []refreshtoken.Rule{unprotected, stale, old}, ""},
		{"any of them", []refreshtoken.Rule{refreshtoken.Any(unprotected, stale, old)},
			"a: not bound to a key and not used since it was created on 2026-01-02; c: not bound to a key; d: from yc 0.1.0, older than 0.141.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			var last error
			for f, err := range s.client().Find(t.Context(), refreshtoken.ListOptions{}, c.rules...) {
				if last = err; err == nil {
					got = append(got, f.ID+": "+strings.Join(f.Reasons, ", "))
				}
			}
			if strings.Join(got, "; ") != c.want {
				t.Errorf("got %q, want %q", strings.Join(got, "; "), c.want)
			}
			if !errors.Is(last, refreshtoken.ErrInvalidArgument) {
				t.Errorf("the last page fails, but got %v", last)
			}
		})
	}
	for range s.client().Find(t.Context(), refreshtoken.ListOptions{}, refreshtoken.Unprotected()) {
		break // leaves nothing behind: see TestMain
	}
}

func TestFindRefuses(t *testing.T) {
	s := serve(t, answer(http.StatusOK, `{}`))
	for text, rules := range map[string][]refreshtoken.Rule{"takes at least one rule": nil, "rule 2, is nil": {refreshtoken.Unprotected(), nil}} {
		for _, err := range s.client().Find(t.Context(), refreshtoken.ListOptions{}, rules...) {
			wantText(t, as[*refreshtoken.ArgumentError](t, err).Error(), text)
		}
	}
	if n := len(s.seen()); n != 0 {
		t.Errorf("%d requests", n)
	}
}
