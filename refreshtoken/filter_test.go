package refreshtoken_test

import (
	"fmt"
	"reflect"
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
			got, err := c.filter.Expression()
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want || c.filter.String() != c.want {
				t.Errorf("got %s and %s, want %s", got, c.filter, c.want)
			}
			back, err := refreshtoken.ParseFilter(got)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, c.filter) {
				t.Errorf("came back as %+v, want %+v", back, c.filter)
			}
		})
	}
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
				expr, err := f.Expression()
				e := as[*refreshtoken.ArgumentError](t, err)
				if expr != "" || e.Field != field {
					t.Errorf("got the expression %q, field %q", expr, e.Field)
				}
				wantText(t, e.Error(), c.reason)
				if strings.Contains(e.Error(), c.value) {
					t.Errorf("%q repeats the value", e)
				}
				if _, err := refreshtoken.ParseFilter(f.String()); err == nil || !strings.HasPrefix(f.String(), "!(") {
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
		_, err := f.Expression()
		wantText(t, as[*refreshtoken.ArgumentError](t, err).Error(), "Filter has", "the API takes 1000 at most")
	})
	t.Run("empty level", func(t *testing.T) {
		_, err := refreshtoken.Filter{ProtectionLevels: []refreshtoken.ProtectionLevel{""}}.Expression()
		wantText(t, as[*refreshtoken.ArgumentError](t, err).Error(), "has 0 characters")
	})
}

func TestParseFilter(t *testing.T) {
	type levels = []refreshtoken.ProtectionLevel
	for _, c := range []struct {
		expr string
		want refreshtoken.Filter
	}{
		{" \t\r\n", refreshtoken.Filter{}},
		{` client_id = "abc"AND client_instance_info="d e f" `, refreshtoken.Filter{ClientID: "abc", ClientInstanceInfo: "d e f"}},
		{`protection_level IN("NO_PROTECTION")`, refreshtoken.Filter{ProtectionLevels: levels{"NO_PROTECTION"}}},
		{"protection_level\nIN\n(\n\"AAA\"\n,\n\"BBB\"\n)\nAND\nclient_id=\"abc\"", refreshtoken.Filter{ClientID: "abc", ProtectionLevels: levels{"AAA", "BBB"}}},
		{`client_instance_info="a AND b" AND protection_level="AND"`, refreshtoken.Filter{ClientInstanceInfo: "a AND b", ProtectionLevels: levels{"AND"}}},
	} {
		t.Run(c.expr, func(t *testing.T) {
			got, err := refreshtoken.ParseFilter(c.expr)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestParseFilterRefuses(t *testing.T) {
	for _, c := range []struct{ expr, reason string }{
		{`clientId="secret"`, "character 1: want one of the fields client_id, client_instance_info, protection_level"},
		{`="secret"`, "character 1: want one of the fields"},
		{`client_id`, "character 10: want ="},
		{`client_id="abc" ANDaclient_id="abc"`, "character 17: want AND"},
		{`client_id="abc" ANDzclient_id="abc"`, "character 17: want AND"},
		{`client_id="abc" ANDAclient_id="abc"`, "character 17: want AND"},
		{`client_id="abc" ANDZclient_id="abc"`, "character 17: want AND"},
		{`client_id="abc" AND0client_id="abc"`, "character 17: want AND"},
		{`client_id="abc" AND9client_id="abc"`, "character 17: want AND"},
		{`client_id IN ("secret")`, "character 11: want ="},
		{`client_id="secret`, "character 12: the double quote is not closed"},
		{`client_id='secret'`, "character 11: want a value in double quotes"},
		{`client_id=""`, "the value is empty"},
		{`client_id="secret" OR client_id="other"`, "character 20: want AND"},
		{`client_id="secret" and client_instance_info="other"`, "character 20: want AND"},
		{`client_id="secret" AND`, "character 23: want one of the fields"},
		{`client_id="яяя" AND client_id="secret"`, "character 21: a field comes twice"},
		{`protection_level="AAA" AND protection_level="BBB"`, "IN (…)"},
		{`protection_level`, "want = or IN"},
		{`protection_level in ("AAA")`, "character 18: want = or IN"},
		{`protection_level IN "AAA"`, "want ( after IN"},
		{`protection_level IN ()`, "want a value"},
		{`protection_level IN ("AAA"`, "want , or )"},
		{`protection_level IN ("AAA",)`, "want a value"},
		{`client_id="secret\"`, "backslash"},
		{`client_id="ab"`, "has 2 characters"},
		{strings.Repeat(" ", 1001), "1001 characters"},
		{"client_id=\"\xff\"", "UTF-8"},
	} {
		t.Run(c.expr, func(t *testing.T) {
			f, err := refreshtoken.ParseFilter(c.expr)
			e := as[*refreshtoken.ArgumentError](t, err)
			wantText(t, e.Error(), c.reason)
			if strings.Contains(e.Error(), "secret") {
				t.Errorf("%q repeats the expression", e)
			}
			if !reflect.DeepEqual(f, refreshtoken.Filter{}) {
				t.Errorf("got the filter %+v with an error", f)
			}
		})
	}
}

func FuzzParseFilter(f *testing.F) {
	f.Fuzz(func(t *testing.T, expr string) {
		filter, err := refreshtoken.ParseFilter(expr)
		if err != nil {
			as[*refreshtoken.ArgumentError](t, err)
			return
		}
		canonical, err := filter.Expression()
		if err != nil {
			t.Fatalf("%q parses, but has no expression: %v", expr, err)
		}
		back, err := refreshtoken.ParseFilter(canonical)
		if err != nil {
			t.Fatalf("%q does not parse: %v", canonical, err)
		}
		if !reflect.DeepEqual(back, filter) {
			t.Fatalf("%+v came back as %+v", filter, back)
		}
	})
}
