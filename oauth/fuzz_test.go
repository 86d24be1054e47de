package oauth

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"AQAAAACy1C6ZAAAAfa6vDLuItEy8pg-iIpnDxIs","refresh_token":"1:GN686QVt0mmakDd9:A4pYuW9LGk0","token_type":"bearer","expires_in":124234123534}`,
		`{"access_token":"t1.9eu","token_type":"Bearer","expires_in":43199,"scope":"openid offline_access","refresh_token":"rt1.x"}`,
		`{"access_token":"a","token_type":"DPoP","expires_in":"3600"}`,
		`{"access_token":"a","expires_in":1e999}`, `{"access_token":"a","expires_in":-1.5}`, `{"refresh_token":"r"}`,
		`{"access_token":"a","access_token":"b"}`, `{"access_token":null}`, `[]`, ``, `{`, "\xff", `{"a":` + strings.Repeat("[", 100),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		ans, err := parseToken(body)
		if err == nil && (!isVSChars(ans.accessToken.Reveal()) || ans.tokenType != "Bearer" && ans.tokenType != "DPoP") {
			t.Errorf("accepted %+v", ans)
		}
		if ans.lifetime < 0 || ans.lifetime > maxLifetime || time.Now().Add(ans.lifetime).Before(time.Now().Add(-time.Minute)) {
			t.Errorf("lifetime %v", ans.lifetime)
		}
		if ans.refreshToken != "" && !isVSChars(ans.refreshToken.Reveal()) {
			t.Errorf("refresh token %q", ans.refreshToken.Reveal())
		}
	})
}

func FuzzParseErrorAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"error":"invalid_grant","error_description":"expired"}`, `{"error":"Basic auth required"}`, `{"error":5}`,
		`{"error_description":"no code"}`, `{"error":"","error_description":"x"}`, `{"error":"a","error":"b"}`, `<html>`, ``,
		`{"error":"\u0000\u001b[31m"}`, `{"error":"invalid_grant","error_description":"hunter2-secret echoed"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		code, description, err := parseErrorAnswer(body, []string{"hunter2-secret"})
		if err == nil && code == "" {
			t.Error("an error without a code was accepted")
		}
		for _, s := range []string{code, description} {
			if strings.Contains(s, "hunter2-secret") || strings.ContainsAny(s, "\x00\x1b\n\r") {
				t.Errorf("%q came through", s)
			}
		}
		if err != nil && strings.Contains(err.Error(), "hunter2-secret") {
			t.Errorf("the secret is in %v", err)
		}
	})
}

func FuzzDecodeSession(f *testing.F) {
	full, err := Session{
		Provider: "p", ClientID: "c", RefreshToken: "r", AccessToken: "a", TokenType: "Bearer", Expiry: time.Unix(1e9, 5),
		Scopes: []string{"openid"}, Generation: 3, Warning: WarnNoOfflineScope,
	}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	for _, seed := range []string{`{"version":1}`, `{"version":2,"provider":"p"}`, ``, `null`, `{"version":1,"provider":"p","client_id":"c","refresh_token":"r","generation":18446744073709551615}`,
		`{"version":1,"provider":"p","client_id":"c","refresh_token":"r","generation":4611686018427387904}`,
		`{"version":1,"provider":"p","client_id":"c","refresh_token":"r","generation":1,"expiry":"0000-01-01T00:00:00+23:59"}`,
		`{"version":1,"provider":"p","client_id":"c","refresh_token":"r","generation":1,"created":"9999-12-31T23:59:59-23:59"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSession(data)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", s, err)
		}
		t2, err := DecodeSession(again)
		if err != nil || t2.RefreshToken != s.RefreshToken || t2.AccessToken != s.AccessToken || t2.Generation != s.Generation || !t2.Expiry.Equal(s.Expiry) {
			t.Errorf("%+v came back as %+v, %v", s, t2, err)
		}
	})
}

func FuzzParseCallback(f *testing.F) {
	for _, seed := range []string{
		"code=abc&state=the-state", "code=abc&state=the-state&iss=https%3A%2F%2Fas.example", "error=access_denied&state=the-state", "code=abc&state=other", "code=a&code=b&state=the-state",
		"state=the-state", "code=%00&state=the-state", "%zz", "code=abc&state=the-state&error=x&error_description=%1b[31m",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		a, err := parseCallback(q, "the-state", expectedIssuer{"https://as.example", true})
		switch {
		case err != nil:
		case q.Get("state") != "the-state":
			t.Error("a foreign state was accepted")
		case a.err == nil && !isVSChars(a.code.Reveal()):
			t.Errorf("code %q", a.code.Reveal())
		case a.err == nil && q.Get("iss") != "https://as.example":
			t.Errorf("a code from %q was accepted", q.Get("iss"))
		}
	})
}

func FuzzPrefersRussian(f *testing.F) {
	for _, seed := range []string{"", "ru", "en-US,en;q=0.9", ",;,", "ru-RU;q=0"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, header string) { prefersRussian(header) })
}

func FuzzParseMetadata(f *testing.F) {
	for _, seed := range []string{
		`{"issuer":"https://as.example","token_endpoint":"https://as.example/token"}`,
		`{"issuer":"https://as.example","token_endpoint":"http://127.0.0.1/token","revocation_endpoint":"file:///etc/passwd"}`,
		`{"issuer":"https://evil.example","token_endpoint":"https://as.example/token"}`,
		`{"issuer":"https://as.example","token_endpoint":"https://as.example/\u202e","scopes_supported":[null,"openid"]}`, `[]`, ``,
	} {
		f.Add([]byte(seed))
	}
	issuer := &url.URL{Scheme: "https", Host: "as.example"}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := parseMetadata(body, issuer, "https://as.example")
		if err != nil {
			return
		}
		for _, endpoint := range []string{p.TokenURL, p.AuthURL, p.DeviceAuthURL, p.PushedAuthURL, p.RevocationURL} {
			if u, err := url.Parse(endpoint); endpoint != "" && (err != nil || !strings.EqualFold(u.Scheme, "https") || u.User != nil) {
				t.Errorf("%q was accepted", endpoint)
			}
		}
		if _, err := New(Config{Provider: p, ClientID: "client"}); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	})
}

func FuzzParseDevice(f *testing.F) {
	for _, seed := range []string{
		`{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://as.example/go","expires_in":900,"interval":5}`,
		`{"device_code":"d","user_code":"U","verification_url":"https://as.example/go","interval":"1e99"}`,
		`{"device_code":"d","user_code":"\u001b[2J","verification_uri":"https://as.example/\u202e"}`, `{}`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := parseDevice(body)
		if err != nil {
			return
		}
		if !isVSChars(d.UserCode + d.VerificationURI + d.deviceCode.Reveal() + d.VerificationURIComplete) {
			t.Errorf("%+v was accepted", d)
		}
		if d.interval < time.Second || d.life < 0 {
			t.Errorf("interval %v, life %v", d.interval, d.life)
		}
	})
}
