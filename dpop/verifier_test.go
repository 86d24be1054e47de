package dpop

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var testTime = time.Unix(1_767_000_000, 0)

// forgery is a proof whose every part can be wrong.
type forgery struct {
	header, payload map[string]any
	rawHeader       string // instead of header
	rawPayload      string // instead of payload
	key             *ecdsa.PrivateKey
	signature       []byte // instead of a good one
}

func forge(tb testing.TB, change func(*forgery)) string {
	tb.Helper()
	key := p256Key().(*ecdsa.PrivateKey)
	f := forgery{
		key:     key,
		header:  map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": jose.JSONWebKey{Key: key.Public()}},
		payload: map[string]any{"jti": "an-id", "htm": "POST", "htu": tokenURL, "iat": testTime.Unix()},
	}
	if change != nil {
		change(&f)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	encode := func(raw string, v any) string {
		if raw != "" {
			return b64([]byte(raw))
		}
		return b64(must(json.Marshal(v)))
	}
	input := encode(f.rawHeader, f.header) + "." + encode(f.rawPayload, f.payload)
	if f.signature == nil {
		sum := sha256.Sum256([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, f.key, sum[:])
		if err != nil {
			tb.Fatal(err)
		}
		f.signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	return input + "." + b64(f.signature)
}

// publicMembers is the jwk of the usual key, to be changed by hand.
func publicMembers() map[string]any {
	var m map[string]any
	if err := json.Unmarshal(must(jose.JSONWebKey{Key: p256Key().Public()}.MarshalJSON()), &m); err != nil {
		panic(err)
	}
	return m
}

func withJWK(change func(map[string]any)) func(*forgery) {
	return func(f *forgery) {
		m := publicMembers()
		change(m)
		f.header["jwk"] = m
	}
}

func header(name string, value any) func(*forgery) {
	return func(f *forgery) { f.header[name] = value }
}

func claim(name string, value any) func(*forgery) {
	return func(f *forgery) { f.payload[name] = value }
}

func without(name string) func(*forgery) {
	return func(f *forgery) { delete(f.header, name); delete(f.payload, name) }
}

var wantPOST = Expected{Method: "POST", URL: tokenURL}

func TestVerify(t *testing.T) {
	jkt := thumbprintOf(t, p256Key())
	for name, change := range map[string]func(*forgery){
		"plain":                         nil,
		"type in other case":            header("typ", "DPoP+JWT"),
		"unknown header":                header("kid", "some-key"),
		"unknown claim":                 claim("sub", map[string]any{"a": 1}),
		"null claims":                   func(f *forgery) { f.payload["nonce"], f.payload["ath"] = nil, nil },
		"ath where no token came":       claim("ath", "anything"),
		"nonce where none is asked for": claim("nonce", "anything"),
		"iat with a fraction":           claim("iat", float64(testTime.Unix())+0.75),
		"iat as early as allowed":       claim("iat", testTime.Unix()-70),
		"iat as late as allowed":        claim("iat", testTime.Unix()+10),
		"htu with query and fragment":   claim("htu", tokenURL+"?a=b#c"),
		"htu not in normal form":        claim("htu", "HTTPS://AUTH.example.com:443/x/../%6fauth/token"),
		"jti as long as allowed":        claim("jti", strings.Repeat("j", 512)),
		"jti with odd characters":       claim("jti", "\x00\"\u2028"),
		"key with metadata":             withJWK(func(m map[string]any) { m["kid"], m["use"], m["alg"] = "k", "sig", "ES256" }),
		"exp that is no number":         claim("exp", "tomorrow"),
		"exp and nbf that are null":     func(f *forgery) { f.payload["exp"], f.payload["nbf"] = nil, nil },
		"exp and nbf now":               func(f *forgery) { f.payload["exp"], f.payload["nbf"] = testTime.Unix(), testTime.Unix() },
		"exp as early as allowed":       claim("exp", testTime.Unix()-9),
		"nbf as late as allowed":        claim("nbf", testTime.Unix()+10),
		"exp in the far future":         claim("exp", 1e300),
	} {
		t.Run(name, func(t *testing.T) {
			v := Verifier{Now: at(testTime)}
			got, err := v.Verify(forge(t, change), Expected{Method: "POST", URL: tokenURL + "?q", Thumbprint: jkt})
			if err != nil {
				t.Fatal(err)
			}
			if got.Method != http.MethodPost || got.URL != tokenURL || got.Thumbprint != jkt || got.ID == "" || got.Certificates != nil {
				t.Errorf("%+v", got)
			}
			if key, err := json.Marshal(got.Key); err != nil || string(key) != string(must(json.Marshal(jose.JSONWebKey{Key: p256Key().Public()}))) {
				t.Errorf("key %s, %v", key, err)
			}
		})
	}
}

// One failing case at least for each check of RFC 9449 §4.3, by its number.
func TestVerifyRefuses(t *testing.T) {
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	cert, otherCert := selfSigned(t, p256Key()), selfSigned(t, other)
	broken := base64.StdEncoding.EncodeToString(cert.Raw) // as PEM has it
	broken = broken[:64] + "\n" + broken[64:]
	good := forge(t, nil)
	parts := strings.Split(good, ".")
	hs256 := func(secret string) func(*forgery) {
		return func(f *forgery) {
			f.header["alg"], f.header["jwk"] = "HS256", map[string]any{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString([]byte(secret))}
			input := base64.RawURLEncoding.EncodeToString(must(json.Marshal(f.header))) + "." + base64.RawURLEncoding.EncodeToString(must(json.Marshal(f.payload)))
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(input))
			f.signature = mac.Sum(nil)
		}
	}
	raw := func(header, payload string) func(*forgery) {
		return func(f *forgery) { f.rawHeader, f.rawPayload = header, payload }
	}
	jwk := string(must(json.Marshal(publicMembers())))

	for _, tt := range []struct {
		name   string
		change func(*forgery)
		proof  string // instead of a forgery
		want   string
		is     error
	}{
		{name: "2 empty", proof: " ", want: "not a compact JWS"},
		{name: "2 text", proof: "hunter2", want: "not a compact JWS"},
		{name: "2 two parts", proof: parts[0] + "." + parts[1], want: "not a compact JWS"},
		{name: "2 four parts", proof: good + ".x", want: "not a compact JWS"},
		{name: "2 detached payload", proof: parts[0] + ".." + parts[2], want: "signature does not verify"},
		{name: "2 padding", proof: parts[0] + "=." + parts[1] + "." + parts[2], want: "not a compact JWS"},
		{name: "2 line feed in the key", change: withJWK(func(m map[string]any) { m["x"] = m["x"].(string)[:9] + "\n" + m["x"].(string)[9:] }), want: "line break in the public key"},
		{name: "2 carriage return in the key", change: withJWK(func(m map[string]any) { m["y"] = m["y"].(string) + "\r" }), want: "line break in the public key"},
		{name: "2 line feed at the end", proof: good + "\n", want: "not a compact JWS"},
		{name: "2 line feed in the header", proof: parts[0][:9] + "\n" + parts[0][9:] + "." + parts[1] + "." + parts[2], want: "not a compact JWS"},
		{name: "2 line feed before the payload", proof: parts[0] + ".\n" + parts[1] + "." + parts[2], want: "not a compact JWS"},
		{name: "2 carriage return in the signature", proof: parts[0] + "." + parts[1] + "." + parts[2][:9] + "\r" + parts[2][9:], want: "not a compact JWS"},
		{name: "2 space at the end", proof: good + " ", want: "not a compact JWS"},
		{name: "2 standard base64", proof: parts[0] + "." + parts[1] + "." + strings.Repeat("+/", 43), want: "not a compact JWS"},
		{name: "2 JSON serialization", proof: fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]), want: "not a compact JWS"},
		{name: "2 two proofs", proof: good + ", " + good, want: "not a compact JWS"},
		{name: "2 header is no object", change: raw(`["ES256"]`, ""), want: "not a compact JWS"},
		{name: "2 header is null", change: raw(`null`, ""), want: "not a compact JWS"},
		{name: "2 header has a name twice", change: raw(`{"typ":"x","typ":"dpop+jwt","alg":"ES256","jwk":`+jwk+`}`, ""), want: "not a compact JWS"},
		{name: "2 key has a name twice", change: raw(`{"typ":"dpop+jwt","alg":"ES256","jwk":`+strings.Replace(jwk, "{", `{"kty":"EC",`, 1)+`}`, ""), want: "not a compact JWS"},
		{name: "2 unknown member has a name twice", change: raw(`{"typ":"dpop+jwt","alg":"ES256","x":{"a":1,"a":2},"jwk":`+jwk+`}`, ""), want: "not a compact JWS"},
		{name: "2 header is not UTF-8", change: raw(`{"typ":"dpop+jwt","alg":"ES256","x":"`+"\xff"+`","jwk":`+jwk+`}`, ""), want: "header is not a JSON object"},
		{name: "2 header is nested deep", change: raw(`{"typ":"dpop+jwt","alg":"ES256","x":`+strings.Repeat("[", 99)+strings.Repeat("]", 99)+`,"jwk":`+jwk+`}`, ""), want: "header is not a JSON object"},
		{name: "2 critical extension", change: func(f *forgery) { f.header["crit"], f.header["exp"] = []string{"exp"}, 1 }, want: "extension"},
		{name: "2 critical extension that go-jose knows", change: func(f *forgery) { f.header["crit"], f.header["b64"] = []string{"b64"}, true }, want: "extension"},
		{name: "2 b64 alone", change: header("b64", false), want: "extension"},
		{name: "2 null crit", change: header("crit", nil), want: "extension"},
		{name: "2 null b64", change: header("b64", nil), want: "extension"},
		{name: "2 empty crit", change: header("crit", []string{}), want: "extension"},
		{name: "too long", proof: good + strings.Repeat("x", maxProof), want: "longer than 16 KiB"},
		{name: "too long by its claims", change: claim("pad", strings.Repeat("x", maxProof)), want: "longer than 16 KiB"},

		{name: "3 no jti", change: without("jti"), want: "claim jti is missing"},
		{name: "3 no htm", change: without("htm"), want: "claim htm is missing"},
		{name: "3 no htu", change: without("htu"), want: "claim htu is missing"},
		{name: "3 no iat", change: without("iat"), want: "iat is missing"},
		{name: "3 empty jti", change: claim("jti", ""), want: "claim jti is missing"},
		{name: "3 null jti", change: claim("jti", nil), want: "claim jti is missing"},
		{name: "3 jti is a number", change: claim("jti", 1), want: "claim jti is not a string"},
		{name: "3 htm is an array", change: claim("htm", []string{"POST"}), want: "claim htm is not a string"},
		{name: "3 htu is an object", change: claim("htu", map[string]any{}), want: "claim htu is not a string"},
		{name: "3 nonce is a number", change: claim("nonce", 1), want: "claim nonce is not a string"},
		{name: "3 ath is a boolean", change: claim("ath", true), want: "claim ath is not a string"},
		{name: "3 iat is a string", change: claim("iat", "1767000000"), want: "not a time"},
		{name: "3 iat is negative", change: claim("iat", -1), want: "not a time"},
		{name: "3 iat is out of range", change: claim("iat", 1e300), want: "not a time"},
		{name: "3 iat is null", change: claim("iat", nil), want: "iat is missing"},
		{name: "3 names in other case", change: func(f *forgery) { f.payload["JTI"] = f.payload["jti"]; delete(f.payload, "jti") }, want: "claim jti is missing"},
		{name: "3 jti is long", change: claim("jti", strings.Repeat("j", 513)), want: "longer than 512"},
		{name: "3 payload has a name twice", change: raw("", fmt.Sprintf(`{"jti":"a","htm":"GET","htm":"POST","htu":%q,"iat":%d}`, tokenURL, testTime.Unix())), want: "with distinct names"},
		{name: "3 payload is no object", change: raw("", `"POST"`), want: "payload is not a JSON object"},
		{name: "3 payload is no JSON", change: raw("", `{`), want: "payload is not a JSON object"},

		{name: "4 no type", change: without("typ"), want: "typ"},
		{name: "4 another type", change: header("typ", "JWT"), want: "typ"},
		{name: "4 type with a prefix", change: header("typ", "application/dpop+jwt"), want: "typ"},
		{name: "4 type is a number", change: header("typ", 1), want: "typ"},

		{name: "5 none", change: func(f *forgery) { f.header["alg"], f.signature = "none", []byte{} }, want: "accepted one (alg)"},
		{name: "5 none, with a signature", change: header("alg", "none"), want: "accepted one (alg)"},
		{name: "5 HMAC", change: hs256("hunter2hunter2hunter2hunter2hunter2"), want: "accepted one (alg)"},
		{name: "5 no algorithm", change: without("alg"), want: "accepted one (alg)"},
		{name: "5 an algorithm not accepted", change: header("alg", "PS512"), want: "accepted one (alg)"},
		{name: "5 algorithm of another kind of key", change: header("alg", "PS256"), want: "does not fit"},
		{name: "5 algorithm of another curve", change: header("alg", "ES384"), want: "does not fit"},
		{name: "5 weak RSA key", change: func(f *forgery) { f.header["alg"], f.header["jwk"] = "PS256", jose.JSONWebKey{Key: weak.Public()} }, want: "too weak"},

		{name: "6 signature of another key", change: func(f *forgery) { f.key = other }, want: "does not verify"},
		{name: "6 no signature", proof: parts[0] + "." + parts[1] + ".", want: "does not verify"},
		{name: "6 signature of zeros", change: func(f *forgery) { f.signature = make([]byte, 64) }, want: "does not verify"},
		{name: "6 signature in DER", change: func(f *forgery) { f.signature = bytes.Repeat([]byte{0x30}, 70) }, want: "does not verify"},
		{name: "6 changed payload", proof: parts[0] + "." + strings.Split(forge(t, claim("jti", "other")), ".")[1] + "." + parts[2], want: "does not verify"},
		{name: "6 changed header", proof: strings.Split(forge(t, header("kid", "x")), ".")[0] + "." + parts[1] + "." + parts[2], want: "does not verify"},

		{name: "7 no key", change: without("jwk"), want: "no public key"},
		{name: "7 null key", change: header("jwk", nil), want: "no public key"},
		{name: "7 key is a string", change: header("jwk", "key"), want: "public key"},
		{name: "7 private key", change: header("jwk", jose.JSONWebKey{Key: p256Key()}), want: "public key"},
		{name: "7 private member", change: withJWK(func(m map[string]any) { m["d"] = "hunter2hunter2" }), want: "public key"},
		{name: "7 symmetric key", change: header("jwk", map[string]any{"kty": "oct", "k": "aHVudGVyMg"}), want: "public key"},
		{name: "7 unknown kind of key", change: header("jwk", map[string]any{"kty": "XX"}), want: "public key"},
		{name: "7 point off the curve", change: withJWK(func(m map[string]any) { m["x"] = m["y"] }), want: "public key"},
		{name: "7 short coordinate", change: withJWK(func(m map[string]any) { m["x"] = m["x"].(string)[:40] }), want: "public key"},

		{name: "8 another method", change: claim("htm", "GET"), want: "htm"},
		{name: "8 method in other case", change: claim("htm", "post"), want: "htm"},

		{name: "9 another path", change: claim("htu", tokenURL+"2"), want: "htu"},
		{name: "9 another host", change: claim("htu", "https://example.com/oauth/token"), want: "htu"},
		{name: "9 another scheme", change: claim("htu", "http://auth.example.com/oauth/token"), want: "htu"},
		{name: "9 another port", change: claim("htu", "https://auth.example.com:8443/oauth/token"), want: "htu"},
		{name: "9 path in other case", change: claim("htu", "https://auth.example.com/OAuth/token"), want: "htu"},
		{name: "9 slash at the end", change: claim("htu", tokenURL+"/"), want: "htu"},
		{name: "9 relative", change: claim("htu", "/oauth/token"), want: "htu"},
		{name: "9 user", change: claim("htu", "https://u@auth.example.com/oauth/token"), want: "htu"},

		{name: "11 too old", change: claim("iat", testTime.Unix()-71), want: "1m11s ago", is: ErrIssuedAt},
		{name: "11 from the future", change: claim("iat", testTime.Unix()+11), want: "11s in the future", is: ErrIssuedAt},
		{name: "11 from far future", change: claim("iat", 1<<50), want: "in the future", is: ErrIssuedAt},
		{name: "11 expired", change: claim("exp", testTime.Unix()-10), want: "expired", is: ErrIssuedAt},
		{name: "11 expired by a fraction", change: claim("exp", float64(testTime.Unix())-10.25), want: "expired", is: ErrIssuedAt},
		{name: "11 expired in 1970", change: claim("exp", 0), want: "expired", is: ErrIssuedAt},
		{name: "11 exp far ahead does not help", change: func(f *forgery) { f.payload["iat"], f.payload["exp"] = testTime.Unix()-71, 1<<50 }, want: "ago", is: ErrIssuedAt},
		{name: "11 not yet valid", change: claim("nbf", testTime.Unix()+11), want: "not valid yet", is: ErrIssuedAt},
		{name: "11 not valid for ever", change: claim("nbf", 1e300), want: "not valid yet", is: ErrIssuedAt},
		{name: "11 nbf is out of range", change: claim("nbf", json.Number("1e999")), want: "nbf is not a time"},
		{name: "11 from 1970", change: claim("iat", 0), want: "ago", is: ErrIssuedAt},

		{name: "x5c of another key", change: header("x5c", [][]byte{otherCert.Raw}), want: "x5c"},
		{name: "x5c in the wrong order", change: header("x5c", [][]byte{otherCert.Raw, cert.Raw}), want: "x5c"},
		{name: "x5c is empty", change: header("x5c", []string{}), want: "x5c"},
		{name: "x5c is a string", change: header("x5c", "x"), want: "compact JWS"},
		{name: "x5c is no certificate", change: header("x5c", []string{"AAAA"}), want: "compact JWS"},
		{name: "x5c with a line break", change: header("x5c", []string{broken}), want: "line break in the certificate chain"},
		{name: "x5c with a line break later", change: header("x5c", []string{base64.StdEncoding.EncodeToString(cert.Raw), broken}), want: "line break in the certificate chain"},
		{name: "x5c of the key", change: withJWK(func(m map[string]any) { m["x5c"] = []string{broken} }), want: "line break in the public key"},
		{name: "x5c in base64url", change: header("x5c", []string{base64.RawURLEncoding.EncodeToString(cert.Raw)}), want: "compact JWS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Verifier{Now: at(testTime)}
			proof := tt.proof
			if proof == "" {
				proof = forge(t, tt.change)
			}
			_, err := v.Verify(proof, wantPOST)
			wantProofError(t, err, tt.want, tt.is)
			if len(v.seen.known) != 0 {
				t.Error("a bad proof was remembered")
			}
		})
	}
}

// wantProofError wants a ProofError with these words, sentinel and code.
func wantProofError(t *testing.T, err error, want string, is error) {
	t.Helper()
	var pe *ProofError
	if !errors.As(err, &pe) {
		t.Fatalf("Verify: %v, want a ProofError", err)
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %q, want %q", err, want)
	}
	for _, c := range pe.Reason { // RFC 6749 §5.2: "%x20-21 / %x23-5B / %x5D-7E"
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			t.Errorf("the reason %q is not fit for an error_description", pe.Reason)
		}
	}
	for _, sentinel := range []error{ErrUseNonce, ErrReplay, ErrWrongKey, ErrUnboundToken, ErrIssuedAt} {
		if errors.Is(err, sentinel) != (sentinel == is) { //nolint:errorlint // which sentinel the case wants
			t.Errorf("errors.Is(%q, %q) = %v", err, sentinel, errors.Is(err, sentinel))
		}
	}
	code := map[error]string{ErrUseNonce: "use_dpop_nonce", ErrUnboundToken: "invalid_token"}[is]
	if code == "" {
		code = "invalid_dpop_proof"
	}
	if pe.Code() != code {
		t.Errorf("Code = %s, want %s", pe.Code(), code)
	}
}

// Check 10.
func TestVerifyNonce(t *testing.T) {
	asked := []string{}
	v := Verifier{Now: at(testTime), CheckNonce: func(nonce string) bool {
		asked = append(asked, nonce)
		return nonce == "good"
	}}
	_, err := v.Verify(forge(t, nil), wantPOST)
	wantProofError(t, err, "nonce is missing", ErrUseNonce)
	_, err = v.Verify(forge(t, claim("nonce", "old")), wantPOST)
	wantProofError(t, err, "not accepted", ErrUseNonce)
	got, err := v.Verify(forge(t, claim("nonce", "good")), wantPOST)
	if err != nil || got.Nonce != "good" {
		t.Errorf("%+v, %v", got, err)
	}
	if strings.Join(asked, " ") != "old good" {
		t.Errorf("CheckNonce was asked for %q", asked)
	}
}

// Check 12.
func TestVerifyToken(t *testing.T) {
	jkt := thumbprintOf(t, p256Key())
	ath := string(appendATH(nil, rfcAccessToken))
	for _, tt := range []struct {
		name      string
		change    func(*forgery)
		token     string
		jkt, want string
		is        error
	}{
		{"right", claim("ath", ath), rfcAccessToken, jkt, "", nil},
		{"no ath", nil, rfcAccessToken, jkt, "no hash", nil},
		{"empty ath", claim("ath", ""), rfcAccessToken, jkt, "no hash", nil},
		{"ath of another token", claim("ath", ath), "other", jkt, "another access token", nil},
		{"padded ath", claim("ath", ath+"="), rfcAccessToken, jkt, "another access token", nil},
		{"another key", claim("ath", ath), rfcAccessToken, rfcThumbprint, "another key", ErrWrongKey},
		{"another key at a token endpoint", nil, "", rfcThumbprint, "another key", ErrWrongKey},
		{"thumbprint cut", nil, "", jkt[:42], "another key", ErrWrongKey},
		{"token that is bound to no key", claim("ath", ath), rfcAccessToken, "", "not bound to a key", ErrUnboundToken},
		{"token that is bound to no key, without ath", nil, rfcAccessToken, "", "no hash", nil},
		{"any key at a token endpoint", nil, "", "", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Verifier{Now: at(testTime)}
			_, err := v.Verify(forge(t, tt.change), Expected{Method: "POST", URL: tokenURL, AccessToken: tt.token, Thumbprint: tt.jkt})
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantProofError(t, err, tt.want, tt.is)
		})
	}
}

func TestVerifyWithoutSense(t *testing.T) {
	var v Verifier
	_, err := v.Verify(forge(t, nil), Expected{Method: "POST", URL: "/oauth/token"})
	var pe *ProofError
	if err == nil || errors.As(err, &pe) {
		t.Errorf("a relative URL: %v, want an error that does not blame the proof", err)
	}
}

func TestVerifyLongest(t *testing.T) {
	var v Verifier
	for n, want := range map[int]bool{maxProof: false, maxProof + 1: true} {
		_, err := v.Verify(strings.Repeat("x", n), wantPOST)
		var pe *ProofError
		if !errors.As(err, &pe) || strings.Contains(pe.Reason, "longer") != want {
			t.Errorf("%d octets: %v", n, err)
		}
	}
}

func TestVerifyReplay(t *testing.T) { synctest.Test(t, testVerifyReplay) }

func testVerifyReplay(t *testing.T) {
	start := time.Now()
	now := func() time.Time { return testTime.Add(time.Since(start)) }
	v := Verifier{Now: now, MaxAge: 30 * time.Second, Leeway: 5 * time.Second}
	proof := forge(t, nil)
	if _, err := v.Verify(proof, wantPOST); err != nil {
		t.Fatal(err)
	}
	// The same octets, the same claims signed anew, and the same in other octets.
	for name, again := range map[string]string{
		"same":                  proof,
		"signed anew":           forge(t, nil),
		"written in other ways": forge(t, claim("htu", "https://AUTH.example.com:443/oauth/./token?x")),
	} {
		_, err := v.Verify(again, wantPOST)
		t.Log(name)
		wantProofError(t, err, "sent before", ErrReplay)
	}
	if _, err := v.Verify(forge(t, claim("jti", "another")), wantPOST); err != nil {
		t.Errorf("another id: %v", err)
	}
	if _, err := v.Verify(forge(t, claim("htu", "https://auth.example.com/")), Expected{Method: "POST", URL: "https://auth.example.com/"}); err != nil {
		t.Errorf("another target: %v", err)
	}
	// It is remembered as long as it would be accepted, to the second.
	time.Sleep(35 * time.Second)
	fresh := func(id string) string {
		return forge(t, func(f *forgery) { f.payload["iat"], f.payload["jti"] = now().Unix(), id })
	}
	if _, err := v.Verify(fresh("between"), wantPOST); err != nil { // makes room, but not of this
		t.Fatal(err)
	}
	_, err := v.Verify(proof, wantPOST)
	wantProofError(t, err, "sent before", ErrReplay)
	time.Sleep(time.Second)
	_, err = v.Verify(proof, wantPOST)
	wantProofError(t, err, "36s ago", ErrIssuedAt)
	if _, err := v.Verify(fresh("after"), wantPOST); err != nil {
		t.Fatal(err)
	}
	if n := len(v.seen.known); n != 2 {
		t.Errorf("%d proofs remembered, want the two fresh ones alone", n)
	}
}

func TestVerifyMaxReplays(t *testing.T) {
	v := Verifier{Now: at(testTime), MaxReplays: 2}
	for i := range 5 {
		if _, err := v.Verify(forge(t, claim("jti", strconv.Itoa(i))), wantPOST); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(v.seen.known); n != 2 {
		t.Errorf("%d proofs remembered", n)
	}
	_, err := v.Verify(forge(t, claim("jti", "4")), wantPOST)
	wantProofError(t, err, "sent before", ErrReplay)
}

func TestVerifyTimes(t *testing.T) {
	for _, tt := range []struct {
		name           string
		maxAge, leeway time.Duration
		iat            int64
		ok             bool
	}{
		{"own limits, oldest", 5 * time.Minute, time.Second, testTime.Unix() - 301, true},
		{"own limits, too old", 5 * time.Minute, time.Second, testTime.Unix() - 302, false},
		{"own limits, newest", 5 * time.Minute, time.Second, testTime.Unix() + 1, true},
		{"own limits, too new", 5 * time.Minute, time.Second, testTime.Unix() + 2, false},
		{"negative limits are the defaults", -1, -1, testTime.Unix() - 70, true},
		{"no end", math.MaxInt64, 0, 0, true},
		{"no end, the future apart", math.MaxInt64, 0, testTime.Unix() + 11, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Verifier{Now: at(testTime), MaxAge: tt.maxAge, Leeway: tt.leeway}
			_, err := v.Verify(forge(t, claim("iat", tt.iat)), wantPOST)
			if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, ErrIssuedAt) {
				t.Errorf("Verify: %v", err)
			}
		})
	}
	t.Run("the time of the machine", func(t *testing.T) {
		var v Verifier
		if _, err := v.Verify(forge(t, claim("iat", time.Now().Unix())), wantPOST); err != nil {
			t.Error(err)
		}
	})
}

func TestVerifyAlgorithms(t *testing.T) {
	v := Verifier{Algorithms: []jose.SignatureAlgorithm{jose.EdDSA, jose.HS256, "none"}}
	if _, err := v.Verify(makeProof(t, newProver(t, edKey()), Claims{}), wantPOST); err != nil {
		t.Error(err)
	}
	_, err := v.Verify(makeProof(t, newProver(t, p256Key()), Claims{}), wantPOST)
	wantProofError(t, err, "accepted one (alg)", nil)

	// Even a Verifier that was told to accept it takes no symmetric key.
	v.Now = at(testTime)
	secret := []byte("hunter2hunter2hunter2hunter2hunter2")
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, (&jose.SignerOptions{}).WithType(proofType).WithHeader("jwk", map[string]string{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString(secret)})))
	jws := must(signer.Sign(fmt.Appendf(nil, `{"jti":"a","htm":"POST","htu":%q,"iat":%d}`, tokenURL, testTime.Unix())))
	_, err = v.Verify(must(jws.CompactSerialize()), wantPOST)
	wantProofError(t, err, "public key", nil)
	_, err = v.Verify(forge(t, func(f *forgery) { f.header["alg"], f.signature = "none", []byte{} }), wantPOST)
	wantProofError(t, err, "does not fit", nil)
}

// The two names of EdDSA with Ed25519 (RFC 9864 §2.2), of which go-jose knows one.
func TestVerifyEd25519(t *testing.T) {
	named := newProver(t, edKey(), WithAlgorithm("Ed25519"))
	sign := func(change func(*forgery)) string { // by the Ed25519 key
		return forge(t, func(f *forgery) {
			f.header["alg"], f.header["jwk"] = "Ed25519", jose.JSONWebKey{Key: edKey().Public()}
			if change != nil {
				change(f)
			}
			input := base64.RawURLEncoding.EncodeToString(must(json.Marshal(f.header))) + "." + base64.RawURLEncoding.EncodeToString(must(json.Marshal(f.payload)))
			if f.signature == nil {
				f.signature = must(edKey().Sign(nil, []byte(input), crypto.Hash(0)))
			}
		})
	}
	otherKey := newProver(t, stub{edKey().Public(), func(message []byte) ([]byte, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return ed25519.Sign(key, message), err
	}}, WithAlgorithm("Ed25519"))
	proof := sign(nil)
	for _, tt := range []struct {
		name  string
		algs  []jose.SignatureAlgorithm
		proof string
		want  string // "" if it is accepted
	}{
		{"default", nil, proof, ""},
		{"EdDSA stands for both", []jose.SignatureAlgorithm{jose.EdDSA}, proof, ""},
		{"the later name alone", []jose.SignatureAlgorithm{"Ed25519"}, proof, ""},
		{"EdDSA, by the later name alone", []jose.SignatureAlgorithm{"Ed25519"}, sign(header("alg", "EdDSA")), "accepted one (alg)"},
		{"neither", []jose.SignatureAlgorithm{jose.ES256}, proof, "accepted one (alg)"},
		{"key with the name", nil, sign(func(f *forgery) {
			f.header["jwk"] = map[string]any{"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(edKey().Public().(ed25519.PublicKey))}
		}), ""},
		{"other case", nil, sign(header("alg", "ed25519")), "accepted one (alg)"},
		{"Ed448", nil, sign(header("alg", "Ed448")), "accepted one (alg)"},
		{"key of another kind", nil, forge(t, header("alg", "Ed25519")), "does not fit"},
		{"an Ed25519 key for ES256", nil, sign(header("alg", "ES256")), "does not fit"},
		{"signed by another key", nil, makeProof(t, otherKey, Claims{IssuedAt: testTime}), "does not verify"},
		{"no signature", nil, sign(func(f *forgery) { f.signature = []byte{} }), "does not verify"},
		{"short signature", nil, sign(func(f *forgery) { f.signature = make([]byte, 63) }), "does not verify"},
		{"long signature", nil, sign(func(f *forgery) { f.signature = make([]byte, 65) }), "does not verify"},
		{"another payload", nil, strings.Join([]string{strings.Split(proof, ".")[0], strings.Split(forge(t, claim("jti", "other")), ".")[1], strings.Split(proof, ".")[2]}, "."), "does not verify"},
		{"no payload", nil, strings.Join([]string{strings.Split(proof, ".")[0], "", strings.Split(proof, ".")[2]}, "."), "does not verify"},
		{"of a Prover", nil, makeProof(t, named, Claims{IssuedAt: testTime}), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			algs := slices.Clone(tt.algs)
			v := Verifier{Algorithms: tt.algs, Now: at(testTime)}
			_, err := v.Verify(tt.proof, wantPOST)
			if tt.want != "" {
				wantProofError(t, err, tt.want, nil)
			} else if err != nil {
				t.Error(err)
			}
			if !slices.Equal(v.Algorithms, algs) {
				t.Errorf("Algorithms is %v now", v.Algorithms)
			}
		})
	}
}

func TestVerifyRequest(t *testing.T) {
	request := func(proofs ...string) *http.Request {
		r := must(http.NewRequest(http.MethodPost, "http://internal:8080/oauth/token", nil))
		for _, p := range proofs {
			r.Header.Add("dpop", p)
		}
		return r
	}
	v := Verifier{Now: at(testTime)}
	proof := forge(t, nil)
	_, err := v.VerifyRequest(request(), Expected{URL: tokenURL})
	wantProofError(t, err, "no DPoP header", nil)
	_, err = v.VerifyRequest(request(proof, proof), Expected{URL: tokenURL})
	wantProofError(t, err, "more than one DPoP header", nil)
	_, err = v.VerifyRequest(request(""), Expected{URL: tokenURL})
	wantProofError(t, err, "not a compact JWS", nil)
	_, err = v.VerifyRequest(request(proof), Expected{Method: "GET", URL: tokenURL})
	wantProofError(t, err, "htm", nil)
	if got, err := v.VerifyRequest(request(proof), Expected{URL: tokenURL}); err != nil || got.Method != http.MethodPost {
		t.Errorf("%+v, %v", got, err)
	}
}

// Of many that send the same proof at once, one gets through.
func TestVerifyConcurrently(t *testing.T) {
	v := Verifier{Now: at(testTime)}
	proof := forge(t, nil)
	results := make(chan error, 16)
	var wg sync.WaitGroup
	for range cap(results) {
		wg.Go(func() {
			_, err := v.Verify(proof, wantPOST)
			results <- err
		})
	}
	wg.Wait()
	close(results)
	passed := 0
	for err := range results {
		if err == nil {
			passed++
		} else if !errors.Is(err, ErrReplay) {
			t.Error(err)
		}
	}
	if passed != 1 {
		t.Errorf("%d passed", passed)
	}
}

func selfSigned(tb testing.TB, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: testTime, NotAfter: testTime.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

func TestCertificateChain(t *testing.T) {
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	issuer := selfSigned(t, other)
	for _, tt := range algorithms {
		t.Run(tt.name, func(t *testing.T) {
			leaf := selfSigned(t, tt.key())
			p := newProver(t, tt.key(), append([]Option{WithCertificateChain([]*x509.Certificate{leaf, issuer})}, tt.opts...)...)
			proof := makeProof(t, p, Claims{})
			var x5c []string // RFC 7515 §4.1.6: standard base64, not base64url
			if err := json.Unmarshal(takeApart(t, proof).header["x5c"], &x5c); err != nil {
				t.Fatal(err)
			}
			if len(x5c) != 2 || x5c[0] != base64.StdEncoding.EncodeToString(leaf.Raw) || x5c[1] != base64.StdEncoding.EncodeToString(issuer.Raw) {
				t.Errorf("x5c %q", x5c)
			}
			var v Verifier
			got, err := v.Verify(proof, wantPOST)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Certificates) != 2 || !got.Certificates[0].Equal(leaf) || !got.Certificates[1].Equal(issuer) {
				t.Errorf("%d certificates", len(got.Certificates))
			}
		})
	}
	for name, chain := range map[string][]*x509.Certificate{
		"of another key": {issuer},
		"nil":            {nil},
		"nil at the end": {selfSigned(t, p256Key()), nil},
		"not parsed":     {{PublicKey: p256Key().Public()}},
	} {
		if p, err := New(p256Key(), WithCertificateChain(chain)); err == nil || p != nil {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	if header := takeApart(t, makeProof(t, newProver(t, p256Key(), WithCertificateChain(nil)), Claims{})).header; header["x5c"] != nil {
		t.Error("x5c of no chain")
	}
}

// FuzzVerify: whatever comes, there is no panic, an error is a ProofError, and
// what passes has everything that was asked for.
func FuzzVerify(f *testing.F) {
	for _, change := range []func(*forgery){
		nil, header("crit", []string{"b64"}), header("alg", "none"), header("x5c", []string{"AAAA"}), claim("iat", 1e300),
		claim("htu", "https://auth.example.com:443/oauth/./token?x#y"), withJWK(func(m map[string]any) { m["d"] = "AA" }),
	} {
		f.Add(forge(f, change))
	}
	f.Add(makeProof(f, newProver(f, rsaKey()), Claims{IssuedAt: testTime}))
	f.Add(makeProof(f, newProver(f, edKey()), Claims{IssuedAt: testTime, Nonce: "n", AccessToken: "t"}))
	f.Add(rfcTokenProof)
	f.Add("eyJ9.e30.")
	f.Add(strings.Replace(forge(f, nil), ".", ".\n", 1))
	f.Fuzz(func(t *testing.T, proof string) {
		v := Verifier{Now: at(testTime)}
		got, err := v.Verify(proof, wantPOST)
		if err != nil {
			var pe *ProofError
			if !errors.As(err, &pe) || got != nil {
				t.Fatalf("%v, %v", got, err)
			}
			return
		}
		if strings.ContainsFunc(proof, func(r rune) bool { return !isTokenChar(byte(min(r, 0x7f))) }) {
			t.Fatalf("accepted: %q", proof)
		}
		if got.ID == "" || got.Method != http.MethodPost || got.URL != tokenURL || !got.Key.IsPublic() || !got.Key.Valid() || got.IssuedAt.Sub(testTime).Abs() > 70*time.Second {
			t.Fatalf("%+v", got)
		}
		jws, err := jose.ParseSignedCompact(proof, defaultAlgorithms)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jws.Verify(got.Key); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(proof, wantPOST); !errors.Is(err, ErrReplay) {
			t.Fatalf("sent again: %v", err)
		}
	})
}

// FuzzVerifySigned signs whatever comes, with the key of RFC 7515 A.3, so that
// the checks behind the signature are reached.
func FuzzVerifySigned(f *testing.F) {
	const header = `{"typ":"dpop+jwt","alg":"ES256","jwk":{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}}`
	payload := fmt.Sprintf(`{"jti":"a","htm":"POST","htu":%q,"iat":%d}`, tokenURL, testTime.Unix())
	f.Add(header, payload)
	f.Add(strings.Replace(header, `"alg"`, `"crit":["b64"],"b64":false,"alg"`, 1), payload)
	f.Add(strings.Replace(header, `"kty"`, `"d":"AA","kty"`, 1), payload)
	f.Add(header, strings.Replace(payload, `"jti"`, `"JTI":"x","nonce":null,"jti"`, 1))
	f.Add(header, strings.Replace(payload, `"iat":`, `"iat":1e1,"iat":`, 1))
	key := must(ecdsa.ParseRawPrivateKey(elliptic.P256(), must(base64.RawURLEncoding.DecodeString("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"))))
	f.Fuzz(func(t *testing.T, header, payload string) {
		if header == "" || payload == "" {
			return // means the usual one to forge
		}
		proof := forge(t, func(f *forgery) { f.rawHeader, f.rawPayload, f.key = header, payload, key })
		v := Verifier{Now: at(testTime)}
		got, err := v.Verify(proof, wantPOST)
		if err != nil {
			if pe := (*ProofError)(nil); !errors.As(err, &pe) || got != nil {
				t.Fatalf("%v, %v", got, err)
			}
			return
		}
		var h struct {
			Typ, Alg  string
			Crit, B64 any
			JWK       map[string]any
		}
		var c struct {
			JTI, HTM, HTU string
			IAT           float64
		}
		if json.Unmarshal([]byte(header), &h) != nil || json.Unmarshal([]byte(payload), &c) != nil {
			t.Fatalf("accepted: %s %s", header, payload)
		}
		if !strings.EqualFold(h.Typ, "dpop+jwt") || h.Alg != "ES256" || h.Crit != nil || h.B64 != nil || h.JWK["d"] != nil {
			t.Fatalf("accepted: %s", header)
		}
		htu, err := normalizeURL(c.HTU)
		if err != nil || htu != tokenURL || c.HTM != "POST" || c.JTI == "" || math.Abs(c.IAT-float64(testTime.Unix())) > 71 {
			t.Fatalf("accepted: %s", payload)
		}
	})
}

// A clock that is set ahead and put right does not make the server forget the proofs
// that it saw before.
func TestVerifyReplayAfterTheClockWasSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off time.Duration
		v := Verifier{Now: func() time.Time { return time.Now().Add(off) }}
		p := newProver(t, p256Key())
		want := Expected{Method: "POST", URL: tokenURL}
		verify := func(proof string, err error) {
			t.Helper()
			if _, got := v.Verify(proof, want); !errors.Is(got, err) {
				t.Errorf("after %v: %v, want %v", off, got, err)
			}
		}
		old := makeProof(t, p, Claims{IssuedAt: v.Now()})
		verify(old, nil)
		time.Sleep(10 * time.Second)
		off = 2 * hour
		ahead := makeProof(t, p, Claims{IssuedAt: v.Now()})
		verify(ahead, nil)
		off = 0
		verify(old, ErrReplay)
		time.Sleep(2 * hour)
		verify(ahead, ErrReplay)
		time.Sleep(2 * time.Minute)
		verify(makeProof(t, p, Claims{IssuedAt: v.Now()}), nil)
		if n := len(v.seen.known); n != 1 {
			t.Errorf("%d proofs are remembered, want the last one", n)
		}
	})
}
