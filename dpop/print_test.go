package dpop

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// plainSource is a token source that prints its token, as a value or behind a
// pointer.
type plainSource struct{ Tok oauth2.Token }

func (s plainSource) Token() (*oauth2.Token, error) { return &s.Tok, nil }

const printedToken = "SECRET-ACCESS-TOKEN"

// traces are the ways in which fmt writes the key or the token.
func traces(key crypto.Signer) []string {
	raw := []byte(printedToken)
	found := []string{printedToken, hex.EncodeToString(raw), fmt.Sprintf("%X", raw), strings.Trim(fmt.Sprintf("%d", raw), "[]")}
	switch key := key.(type) {
	case ed25519.PrivateKey:
		raw = key.Seed()
	case *ecdsa.PrivateKey:
		raw = must(key.Bytes())
		d := new(big.Int).SetBytes(raw)
		found = append(found, d.String(), d.Text(16), strings.Trim(fmt.Sprint(d.Bits()), "[]"), strings.Trim(fmt.Sprintf("%x", d.Bits()), "[]"))
	}
	for _, verb := range []string{"%v", "%#v", "%x", "%X", "%q", "%o", "%b", "% x"} {
		found = append(found, strings.Trim(strings.TrimPrefix(fmt.Sprintf(verb, raw[:8]), "[]byte"), `[]{}"`))
	}
	return found
}

var printVerbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%e", "%t"}

// No verb of fmt and no handler of slog shows a key or a token, however the value
// that leads to it is handed over.
func TestPrint(t *testing.T) {
	type nested struct{ V any }
	for name, key := range map[string]crypto.Signer{"Ed25519": edKey(), "P-256": p256Key()} {
		p := newProver(t, key)
		tok := oauth2.Token{AccessToken: printedToken, TokenType: "DPoP"}
		tr := &Transport{Source: &plainSource{tok}, Prover: p}
		n := new(Nonces)
		n.Learn(parseURL(t, "https://h/"), nonceHeader("SECRET-NONCE"))
		claims := Claims{Method: "GET", URL: "https://h/x?key=SECRET-QUERY", AccessToken: printedToken}
		want := Expected{Method: "GET", URL: "https://h/x?key=SECRET-QUERY", AccessToken: printedToken}
		badClaims, badWant := Claims{URL: "https://u:SECRET-PASSWORD@h/"}, Expected{URL: "https://u:SECRET-PASSWORD@h/"}
		for _, v := range []any{
			p, reflect.ValueOf(p).Elem(), opaqueField{p}, &opaqueField{p},
			tr, &http.Client{Transport: tr}, n,
			claims, &claims, want, &want, badClaims, &badClaims, badWant, &badWant,
		} {
			for how, v := range map[string]any{"alone": v, "nested": nested{v}, "in a slice": []any{v}} {
				printed := map[string]string{}
				for _, verb := range printVerbs {
					printed[verb] = fmt.Sprintf(verb, v)
				}
				var text, js bytes.Buffer
				slog.New(slog.NewTextHandler(&text, nil)).Info("", "v", v)
				slog.New(slog.NewJSONHandler(&js, nil)).Info("", "v", v)
				printed["slog text"], printed["slog JSON"] = text.String(), js.String()
				for verb, s := range printed {
					for _, trace := range append(traces(key), "SECRET-") {
						if strings.Contains(s, trace) {
							t.Errorf("%s: %T %s, with %s: %.200s", name, v, how, verb, s)
							break
						}
					}
				}
			}
		}
	}
}

// opaqueField is somebody else's type. fmt does not ask a value in an unexported
// field, and follows pointers there if the verb does not fit.
type opaqueField struct{ p *Prover }

func TestPrintedText(t *testing.T) {
	p := newProver(t, p256Key())
	jkt := thumbprintOf(t, p256Key())
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		v    any
		want string
	}{
		{p, "dpop.Prover(ES256, " + jkt + ")"},
		{(*Prover)(nil), "dpop.Prover(no key)"},
		{new(Prover), "dpop.Prover(no key)"},
		{new(Transport), "dpop.Transport"},
		{new(Nonces), "dpop.Nonces"},
		{Claims{}, `{Method:"" URL:"" Nonce:"" AccessToken: IssuedAt:now}`},
		{
			Claims{Method: "GET", URL: "https://H:443/a?b", Nonce: "n", AccessToken: "t", IssuedAt: at},
			`{Method:"GET" URL:"https://h/a" Nonce:"n" AccessToken:REDACTED IssuedAt:2026-05-01T12:00:00Z}`,
		},
		{Expected{}, `{Method:"" URL:"" AccessToken: Thumbprint:""}`},
		{
			Expected{Method: "GET", URL: "https://H:443/a?b", AccessToken: "t", Thumbprint: "k"},
			`{Method:"GET" URL:"https://h/a" AccessToken:REDACTED Thumbprint:"k"}`,
		},
	} {
		for _, verb := range printVerbs {
			if got := fmt.Sprintf(verb, tt.v); got != tt.want {
				t.Errorf("%T with %s: %s, want %s", tt.v, verb, got, tt.want)
			}
		}
		if got := fmt.Sprint(tt.v); got != tt.want {
			t.Errorf("%T: %s, want %s", tt.v, got, tt.want)
		}
		if got := tt.v.(slog.LogValuer).LogValue().String(); got != tt.want {
			t.Errorf("%T in a log: %s, want %s", tt.v, got, tt.want)
		}
	}
}
