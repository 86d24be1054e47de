package iamtest

import (
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

func TestParseFilter(t *testing.T) {
	mine := &refreshToken{grant: &grant{client: "yc.oauth.public-sdk", info: "yc/0.141.0", protection: SecureKeyDPoP}}
	tests := []struct {
		filter string
		match  bool
	}{
		{``, true},
		{`client_id="yc.oauth.public-sdk"`, true},
		{`client_id = "yc.oauth.public-sdk"`, true},
		{`client_id="yc.oauth.public-sd"`, false},
		{`client_instance_info="yc/0.141.0"`, true},
		{`client_instance_info="yc/0.142.0"`, false},
		{`protection_level="SECURE_KEY_DPOP"`, true},
		{`protection_level="NO_PROTECTION"`, false},
		{`protection_level="PROTECTION_LEVEL_UNSPECIFIED"`, false},
		{`protection_level IN ("NO_PROTECTION")`, false},
		{`protection_level IN ("INSECURE_KEY_DPOP", "SECURE_KEY_DPOP")`, true},
		{`protection_level IN("INSECURE_KEY_DPOP","SECURE_KEY_DPOP")`, true},
		{"\tprotection_level  IN  ( \"SECURE_KEY_DPOP\" )  ", true},
		{`client_instance_info="yc/0.141.0" AND protection_level IN ("INSECURE_KEY_DPOP", "SECURE_KEY_DPOP")`, true},
		{`client_instance_info="yc/0.141.0" AND client_id="another" AND protection_level="SECURE_KEY_DPOP"`, false},
		{`client_id="` + strings.Repeat("x", 63) + `"`, false},
		{`client_id="ключ клиента"`, false},
	}
	for _, tt := range tests {
		f, err := parseFilter(tt.filter)
		if err != nil {
			t.Errorf("%s: %v", tt.filter, err)
			continue
		}
		if got := f.match(mine); got != tt.match {
			t.Errorf("%s: match %v, want %v", tt.filter, got, tt.match)
		}
	}
}

func TestParseFilterErrors(t *testing.T) {
	tests := []struct{ filter, want string }{
		{` `, "a condition begins with"},
		{`subject_id="abc"`, "a condition begins with"},
		{`clientId="abc"`, "a condition begins with"},
		{`client_id`, "the operator of client_id is ="},
		{`client_id != "abc"`, "the operator of client_id is ="},
		{`client_id IN ("abc")`, "the operator of client_id is ="},
		{`protection_level "NO_PROTECTION"`, "the operator of protection_level is = or IN"},
		{`protection_level INN ("NO_PROTECTION")`, "the operator of protection_level is = or IN"},
		{`protection_level IN "NO_PROTECTION"`, "the operator of protection_level is = or IN"},
		{`protection_level in ("NO_PROTECTION")`, "the operator of protection_level is = or IN"},
		{`protection_level IN ()`, "a value in double quotes"},
		{`protection_level IN ("NO_PROTECTION"`, "a comma or a closing parenthesis"},
		{`protection_level IN ("NO_PROTECTION" "SECURE_KEY_DPOP")`, "a comma or a closing parenthesis"},
		{`protection_level IN ("NO_PROTECTION",)`, "a value in double quotes"},
		{`protection_level="QUANTUM"`, "a protection level is unknown"},
		{`client_id=abc`, "a value in double quotes"},
		{`client_id='abc'`, "a value in double quotes"},
		{`client_id="abc`, "no closing quote"},
		{`client_id="ab"`, "2 characters, and needs 3 to 63"},
		{`client_id="` + strings.Repeat("x", 64) + `"`, "64 characters, and needs 3 to 63"},
		{`client_id="a\"bc"`, "backslash"},
		{"client_id=\"a\nbc\"", "control character"},
		{"client_id=\"abc\xff\"", "not UTF-8"},
		{`client_id="abc" OR client_id="abd"`, "AND or the end"},
		{`client_id="abc",client_id="abd"`, "AND or the end"},
		{`client_id="abc" AND`, "a condition begins with"},
	}
	for _, tt := range tests {
		f, err := parseFilter(tt.filter)
		if err == nil {
			t.Errorf("%s: parsed as %v", tt.filter, f)
		} else if err.Code != iamapi.InvalidArgument || err.Field != "filter" || !strings.Contains(err.Message, tt.want) {
			t.Errorf("%s: %v, want %q", tt.filter, err, tt.want)
		}
	}
}

// FuzzParseFilter: a filter that parses, and is written anew from what was
// understood, parses to the same.
func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		``, `client_id="abc"`, `client_instance_info="clientInstanceInfo" AND protection_level IN ("INSECURE_KEY_DPOP", "SECURE_KEY_DPOP")`,
		`protection_level IN("NO_PROTECTION")`, `client_id="abc" AND `, `client_id="a\bc"`, "\x00", `client_id="абв"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, err := parseFilter(s)
		if err != nil {
			if err.Code != iamapi.InvalidArgument || err.Message == "" {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		var conditions []string
		for _, c := range first {
			if len(c.values) == 1 {
				conditions = append(conditions, c.field+`="`+c.values[0]+`"`)
			} else {
				conditions = append(conditions, c.field+` IN ("`+strings.Join(c.values, `","`)+`")`)
			}
		}
		written := strings.Join(conditions, " AND ")
		second, err := parseFilter(written)
		if err != nil {
			t.Fatalf("%q, written as %q: %v", s, written, err)
		}
		if len(second) != len(first) {
			t.Fatalf("%q, written as %q: %d conditions, and %d", s, written, len(first), len(second))
		}
	})
}

func FuzzParseRevokeBody(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"revokeFilter":{}}`, `{"refreshTokenId":"x"}`, `{"refreshToken":"rt1.x.y"}`, `{"refreshToken":null}`, `[]`, ``,
		`{"revokeFilter":{"clientId":"a","subjectId":"b","clientInstanceInfo":"c"}}`, `{"revokeFilter":{"clientId":1}}`,
		`{"refreshTokenId":"x","refreshTokenId":"y"}`, `{"refreshTokenID":"x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := parseRevokeBody(body)
		if err != nil && (req != revokeRequest{}) {
			t.Errorf("%q: a request and an error", body)
		}
		if err == nil && req.check() == nil {
			req.key() // a request that passes has something to be told by
		}
	})
}

func FuzzPageToken(f *testing.F) {
	p := pager{"query"}
	for _, s := range []string{"", p.token(0), p.token(1 << 40), pager{"other"}.token(1), "!", "LTEuYQ", "MQ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		seq, err := p.parse(token)
		if seq < 0 {
			t.Errorf("%q: negative", token)
		}
		if again, err2 := p.parse(p.token(seq)); err == nil && (err2 != nil || again != seq) {
			t.Errorf("%q: %d became %d", token, seq, again)
		}
	})
}
