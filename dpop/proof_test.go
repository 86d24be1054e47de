package dpop

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/internal/strictjson"
)

func TestClaims(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.FixedZone("", 3*3600))
	for _, tt := range []struct {
		name string
		c    Claims
		want string // the payload, without jti
	}{
		{"token request", Claims{Method: "POST", URL: "https://h/token", IssuedAt: now},
			`"htm":"POST","htu":"https://h/token","iat":1767312245`},
		{"with a nonce", Claims{Method: "POST", URL: "https://h/token", IssuedAt: now, Nonce: "eyJ7S_zG.eyJH0-Z.HX4w-7v"},
			`"htm":"POST","htu":"https://h/token","iat":1767312245,"nonce":"eyJ7S_zG.eyJH0-Z.HX4w-7v"`},
		{"with a token", Claims{Method: "GET", URL: "https://H:443/a/../b?c#d", IssuedAt: now, AccessToken: rfcAccessToken},
			`"htm":"GET","htu":"https://h/b","iat":1767312245,"ath":"fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"`},
		{"method of its own", Claims{Method: "!#$%&'*+-.^_`|~azAZ09", URL: "http://h", IssuedAt: time.Unix(0, 0)},
			"\"htm\":\"!#$%&'*+-.^_`|~azAZ09\",\"htu\":\"http://h/\",\"iat\":0"},
		{"nonce of every character", Claims{Method: "GET", URL: "http://h", IssuedAt: time.Unix(1, 0), Nonce: everyNQCHAR()},
			`"htm":"GET","htu":"http://h/","iat":1,"nonce":"` + everyNQCHAR() + `"`},
		{"before 1970", Claims{Method: "GET", URL: "http://h", IssuedAt: time.Unix(-1, 0)},
			`"htm":"GET","htu":"http://h/","iat":-1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proof, err := newProver(t, edKey()).Proof(t.Context(), tt.c)
			if err != nil {
				t.Fatal(err)
			}
			payload := string(unbase64(t, strings.Split(proof, ".")[1]))
			prefix := `{"jti":"` + takeApart(t, proof).claim(t, "jti") + `",`
			if want := prefix + tt.want + "}"; payload != want {
				t.Errorf("payload %s\nwant    %s", payload, want)
			}
		})
	}
}

// everyNQCHAR is "%x21 / %x23-5B / %x5D-7E" (RFC 6749 Appendix A).
func everyNQCHAR() string {
	var b strings.Builder
	for c := byte(0x21); c <= 0x7e; c++ {
		if c != '"' && c != '\\' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func TestIssuedAtIsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProver(t, edKey())
		for range 3 {
			got := string(takeApart(t, makeProof(t, p, Claims{})).payload["iat"])
			if want := strconv.FormatInt(time.Now().Unix(), 10); got != want {
				t.Errorf("iat = %s, want %s", got, want)
			}
			time.Sleep(1234567 * time.Millisecond) // of the fake clock
		}
	})
}

func TestProofRefuses(t *testing.T) {
	p := newProver(t, stub{edKey().Public(), func([]byte) ([]byte, error) {
		t.Error("the signer was asked")
		return nil, nil
	}})
	good := Claims{Method: "POST", URL: tokenURL}
	with := func(change func(*Claims)) Claims {
		c := good
		change(&c)
		return c
	}
	tests := map[string]Claims{
		"no URL":       with(func(c *Claims) { c.URL = "" }),
		"relative URL": with(func(c *Claims) { c.URL = "/token" }),
		"no method":    with(func(c *Claims) { c.Method = "" }),
		"long nonce":   with(func(c *Claims) { c.Nonce = strings.Repeat("n", maxNonce+1) }),
	}
	for _, s := range []string{" ", "\"", "(", ",", "/", ":", "<", "@", "[", "\\", "{", "\x00", "\x7f", "é"} {
		tests["method "+strconv.Quote(s)] = with(func(c *Claims) { c.Method = "GE" + s + "T" })
	}
	for _, s := range []string{" ", "\"", "\\", "\x00", "\n", "\x7f", "é"} {
		tests["nonce "+strconv.Quote(s)] = with(func(c *Claims) { c.Nonce = "hunter2" + s })
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			proof, err := p.Proof(t.Context(), c)
			if err == nil || proof != "" {
				t.Fatalf("Proof = %q, %v", proof, err)
			}
			if !strings.HasPrefix(err.Error(), "dpop: ") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error: %v", err)
			}
		})
	}
}

// RFC 9449 §4.2: "at least 96 bits of pseudorandom data", and never the same.
func TestID(t *testing.T) {
	p := newProver(t, edKey())
	const routines, each = 8, 50
	var mu sync.Mutex
	seen := make(map[string]bool)
	ones := make([]int, 8*jtiBytes)
	var wg sync.WaitGroup
	for range routines {
		wg.Go(func() {
			for range each {
				id := takeApart(t, makeProof(t, p, Claims{})).claim(t, "jti")
				b := unbase64(t, id)
				if len(b)*8 < 96 {
					t.Errorf("%d bits", len(b)*8)
				}
				mu.Lock()
				if seen[id] {
					t.Errorf("%s came twice", id)
				}
				seen[id] = true
				for i := range ones {
					ones[i] += int(b[i/8]>>(i%8)) & 1
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i, n := range ones { // 200 expected; 10 standard deviations are 100
		if n < 100 || n > 300 {
			t.Errorf("bit %d is set in %d of %d", i, n, routines*each)
		}
	}
}

// The normal form that Prover keeps is that of the right URL.
func TestProofsForSeveralURLs(t *testing.T) {
	p := newProver(t, edKey())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			url := "https://h/" + strconv.Itoa(i)
			for range 50 {
				for _, raw := range []string{url, url + "?a=b"} {
					if got := takeApart(t, makeProof(t, p, Claims{URL: raw})).claim(t, "htu"); got != url {
						t.Errorf("htu = %s, want %s", got, url)
					}
				}
			}
		})
	}
	wg.Wait()
}

// A proof costs no more than eight allocations above the signature itself.
func TestAllocations(t *testing.T) {
	for _, tt := range algorithms {
		t.Run(tt.name, func(t *testing.T) {
			p := newProver(t, tt.key(), tt.opts...)
			digest := make([]byte, 32)
			switch p.alg.hash {
			case crypto.SHA384:
				digest = make([]byte, 48)
			case crypto.SHA512:
				digest = make([]byte, 64)
			}
			raw := testing.AllocsPerRun(50, func() {
				if _, err := tt.key().Sign(rand.Reader, digest, p.alg.opts); err != nil {
					t.Fatal(err)
				}
			})
			c := Claims{Method: "POST", URL: tokenURL + "?a=b", Nonce: "nonce", AccessToken: rfcAccessToken}
			proof := testing.AllocsPerRun(50, func() {
				if _, err := p.Proof(context.Background(), c); err != nil {
					t.Fatal(err)
				}
			})
			if proof > raw+8 {
				t.Errorf("%v allocations, signing alone has %v", proof, raw)
			}
			t.Logf("%v allocations, signing alone has %v", proof, raw)
		})
	}
}

// FuzzClaims checks that whatever Proof accepts becomes JSON that says what was
// given, and verifies.
func FuzzClaims(f *testing.F) {
	f.Add("POST", tokenURL, "", "", int64(0))
	f.Add("GET", "https://h/é\"\\<script>?q#f", "n-_.~", rfcAccessToken, int64(1562262618))
	f.Add("'&<>", "http://[::1%25\"]/%22%5c", everyNQCHAR(), "\x00\xff", int64(-1))
	f.Add("G\"T", "https://h/\u2028", "a\\b", "t", int64(1)<<60)
	key := edKey()
	f.Fuzz(func(t *testing.T, method, url, nonce, token string, iat int64) {
		p := newProver(t, key)
		c := Claims{Method: method, URL: url, Nonce: nonce, AccessToken: token, IssuedAt: time.Unix(iat, 0)}
		proof, err := p.Proof(t.Context(), c)
		if err != nil {
			if proof != "" {
				t.Fatalf("%q with %v", proof, err)
			}
			return
		}
		payload := unbase64(t, strings.Split(proof, ".")[1])
		if _, err := strictjson.Object(payload); err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
		var got struct {
			JTI, HTM, HTU, Nonce, ATH string
			IAT                       int64
		}
		if err := json.Unmarshal(payload, &got); err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
		htu, err := normalizeURL(url)
		if err != nil {
			t.Fatal(err)
		}
		ath := ""
		if token != "" {
			sum := sha256.Sum256([]byte(token))
			ath = base64.RawURLEncoding.EncodeToString(sum[:])
		}
		if len(got.JTI) != 22 || got.HTM != method || got.HTU != htu || got.Nonce != nonce || got.ATH != ath {
			t.Fatalf("payload %s of %+v", payload, c)
		}
		if !c.IssuedAt.IsZero() && got.IAT != iat {
			t.Fatalf("iat %d, want %d", got.IAT, iat)
		}
		if iat < 0 || iat > 1<<50 {
			return
		}
		v := Verifier{Now: at(c.IssuedAt)}
		if _, err := v.Verify(proof, Expected{Method: method, URL: url, AccessToken: token, Thumbprint: must(p.Thumbprint(crypto.SHA256))}); err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
	})
}
