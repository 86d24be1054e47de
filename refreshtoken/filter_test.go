package refreshtoken_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

func TestFilterExpression(t *testing.T) {
	type levels = []refreshtoken.ProtectionLevel
	for _, c := range []struct {
		name   string
		filter refreshtoken.Filter
		want   string
	}{
		{"zero", refreshtoken.Filter{}, ""},
		{"client", refreshtoken.Filter{ClientID: "yc.oauth.public-sdk"}, `client_id="yc.oauth.public-sdk"`},
		{"instance", refreshtoken.Filter{ClientInstanceInfo: "yc/0.141.0"}, `client_instance_info="yc/0.141.0"`},
		{"one level", refreshtoken.Filter{ProtectionLevels: levels{"NO_PROTECTION"}}, `protection_level="NO_PROTECTION"`},
		{"the documented example", refreshtoken.Filter{ClientInstanceInfo: "clientInstanceInfo", ProtectionLevels: levels{"INSECURE_KEY_DPOP", "SECURE_KEY_DPOP"}},
			`client_instance_info="clientInstanceInfo" AND protection_level IN ("INSECURE_KEY_DPOP", "SECURE_KEY_DPOP")`},
		{"a level that is not known", refreshtoken.Filter{ProtectionLevels: levels{"QUANTUM_DPOP"}}, `protection_level="QUANTUM_DPOP"`},
		{"what looks like an expression", refreshtoken.Filter{ClientID: "x' OR client_id=y) AND ("}, `client_id="x' OR client_id=y) AND ("`},
		{"3 characters", refreshtoken.Filter{ClientID: "яяя"}, `client_id="яяя"`},
		{"63 characters", refreshtoken.Filter{ClientID: strings.Repeat("я", 63)}, `client_id="` + strings.Repeat("я", 63) + `"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, `{}`))
			if _, err := list(s.client(), refreshtoken.ListOptions{Filter: c.filter}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(s.seen()[0].query["filter"], "|"); got != c.want || c.filter.String() != c.want {
				t.Errorf("got %s and %s, want %s", got, c.filter, c.want)
			}
		})
	}
}

// listRefuses returns the error of a listing that sends nothing because of its filter.
func listRefuses(t *testing.T, f refreshtoken.Filter) *refreshtoken.ArgumentError {
	t.Helper()
	hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("sent") })}
	_, err := list(refreshtoken.NewClient(hc), refreshtoken.ListOptions{Filter: f})
	return as[*refreshtoken.ArgumentError](t, err)
}

func TestFilterRefusesValues(t *testing.T) {
	for _, c := range []struct{ name, value, reason string }{
		{"double quote", `a" OR client_id="b`, "double quote"},
		{"backslash", `abc\`, "backslash"},
		{"newline", "abc\ndef", "control character"},
		{"zero byte", "abc\x00", "control character"},
		{"C1 control", "abc\u0085", "control character"},
		{"2 characters", "яя", "has 2 characters, but a value in a filter has 3 to 63"},
		{"64 characters", strings.Repeat("я", 64), "has 64 characters"},
		{"not UTF-8", "abc\xff", "UTF-8"},
	} {
		for field, f := range map[string]refreshtoken.Filter{
			"Filter.ClientID":            {ClientID: c.value},
			"Filter.ClientInstanceInfo":  {ClientInstanceInfo: c.value},
			"Filter.ProtectionLevels[1]": {ProtectionLevels: []refreshtoken.ProtectionLevel{"NO_PROTECTION", refreshtoken.ProtectionLevel(c.value)}},
		} {
			t.Run(c.name+"/"+field, func(t *testing.T) {
				e := listRefuses(t, f)
				if e.Field != field {
					t.Errorf("got the field %q", e.Field)
				}
				wantText(t, e.Error(), c.reason)
				if strings.Contains(e.Error(), c.value) {
					t.Errorf("%q repeats the value", e)
				}
				if !strings.HasPrefix(f.String(), "!(") {
					t.Errorf("String is %q, which could pass for an expression", f)
				}
			})
		}
	}
	t.Run("1001 characters", func(t *testing.T) {
		f := refreshtoken.Filter{}
		for i := range 100 {
			f.ProtectionLevels = append(f.ProtectionLevels, refreshtoken.ProtectionLevel(fmt.Sprintf("LEVEL_%d", i)))
		}
		wantText(t, listRefuses(t, f).Error(), "Filter has", "the API takes 1000 at most")
	})
	t.Run("empty level", func(t *testing.T) {
		f := refreshtoken.Filter{ProtectionLevels: []refreshtoken.ProtectionLevel{""}}
		wantText(t, listRefuses(t, f).Error(), "has 0 characters")
	})
}
