package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"hash"
	"math/big"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// RFC 9449 §4.1 and §7.1: two proofs of one key, whose thumbprint is the jkt of
// §6.1.
const (
	rfcTokenProof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik" +
		"VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR" +
		"nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE" +
		"QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIj" +
		"oiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwia" +
		"WF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg" +
		"4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
	rfcResourceProof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik" +
		"VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR" +
		"nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE" +
		"QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIj" +
		"oiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0Z" +
		"WRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNF" +
		"c05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E" +
		"OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
	rfcAccessToken = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
	rfcThumbprint  = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	rfcProofKey    = `{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}`
)

// A proof of the npm package dpop 2.1.2, with generateKeyPair("Ed25519"). Its header has
// the name of RFC 9864.
const (
	npmProof = "eyJhbGciOiJFZDI1NTE5IiwidHlwIjoiZHBvcCtqd3QiLCJqd2siOnsia3R5IjoiT0tQIiwiY3J2IjoiRWQyNTUxOSIs" +
		"IngiOiJockdHaUFEYXh6cmNsZENhZGZSM19qTmgzUHVrZEVIcjdxb3hsZGotUTNzIn19.eyJpYXQiOjE3OTUyOTUzNTgsImp0a" +
		"SI6IjdkMzQzMzZkLTBkMDAtNDkwMi04NjdhLTM2OTJmZDQyMTFjMiIsImh0bSI6IkdFVCIsIm5vbmNlIjoibm9uY2UxIiwiaHR" +
		"1IjoiaHR0cHM6Ly9hcGkuZXhhbXBsZS9hJTIwYi8lQzMlQkMiLCJhdGgiOiJaZHp4YnFQZnBKQnBZb0NKNjBwMVNEQnc5VmhMS" +
		"2lIdVpKRXJYMklmRXRvIn0.7GrWjs0IBw0y7TCEUkLn-Lp9ymfbuyF0sMcU0RFlCbROijai9GgxokbGMmG72B7tgHZqHu8Td78" +
		"Owp3WMz2xAQ"
	npmThumbprint = "U7oFHRLIULx2SUD2XcMFnSWqGP1PgfmpcPVG5ZjHN7c"
)

// RFC 7515 A.2 (RS256), A.3 (ES256), A.4 (ES512) and RFC 8037 A.1 (Ed25519).
const (
	rfcRSAKey = `{"kty":"RSA",
		"n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
		"e":"AQAB",
		"d":"Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
		"p":"4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
		"q":"uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
		"dp":"BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
		"dq":"h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
		"qi":"IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U"}`
	rfcRSAInput     = "eyJhbGciOiJSUzI1NiJ9." + rfcJWSPayload
	rfcRSASignature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"

	rfcJWSPayload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

	rfcP256Key       = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}`
	rfcP256Input     = "eyJhbGciOiJFUzI1NiJ9." + rfcJWSPayload
	rfcP256Signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"

	rfcP521Key       = `{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2","d":"AY5pb7A0UFiB3RELSD64fTLOSV_jazdF7fLYyuTw8lOfRhWg6Y6rUrPAxerEzgdRhajnu0ferB0d53vM9mE15j2C"}`
	rfcP521Input     = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA"
	rfcP521Signature = "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"

	rfcEdKey       = `{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	rfcEdInput     = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
	rfcEdSignature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)

func keyOf(t *testing.T, jwk string) crypto.Signer {
	t.Helper()
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON([]byte(jwk)); err != nil {
		t.Fatal(err)
	}
	if key, ok := k.Key.(crypto.Signer); ok {
		return key
	}
	return stub{pub: k.Key}
}

func TestThumbprintVectors(t *testing.T) {
	for _, tt := range []struct{ name, jwk, want string }{
		{"RFC 7638 section 3.1", `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`,
			"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		{"RFC 8037 A.3", rfcEdKey, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
		{"RFC 9449 section 6.1", rfcProofKey, rfcThumbprint},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newProver(t, keyOf(t, tt.jwk)).Thumbprint(crypto.SHA256)
			if err != nil || got != tt.want {
				t.Errorf("Thumbprint = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// The thumbprints of Yandex Cloud, computed a second time from the words of RFC
// 7638 §3.2 and RFC 8037 §2: the required members, ordered by name, no space.
func TestThumbprintSHA512(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	for _, tt := range algorithms {
		t.Run(tt.name, func(t *testing.T) {
			p := newProver(t, tt.key(), tt.opts...)
			var canonical string
			switch pub := tt.key().Public().(type) {
			case *ecdsa.PublicKey:
				point, err := pub.Bytes() // 4, x, y
				if err != nil {
					t.Fatal(err)
				}
				half := len(point) / 2
				canonical = fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, pub.Curve.Params().Name, b64(point[1:half+1]), b64(point[half+1:]))
			case ed25519.PublicKey:
				canonical = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, b64(pub))
			case *rsa.PublicKey:
				canonical = fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, b64(big.NewInt(int64(pub.E)).Bytes()), b64(pub.N.Bytes()))
			}
			for h, newHash := range map[crypto.Hash]func() hash.Hash{crypto.SHA256: sha256.New, crypto.SHA384: sha512.New384, crypto.SHA512: sha512.New} {
				sum := newHash()
				sum.Write([]byte(canonical))
				want := b64(sum.Sum(nil))
				if got, err := p.Thumbprint(h); err != nil || got != want {
					t.Errorf("%v: %q, %v, want %q", h, got, err, want)
				}
			}
		})
	}
}

func TestThumbprintOfUnknownHash(t *testing.T) {
	p := newProver(t, p256Key())
	for _, h := range []crypto.Hash{0, crypto.MD4, 99} {
		if got, err := p.Thumbprint(h); err == nil {
			t.Errorf("Thumbprint(%d) = %q", h, got)
		}
	}
}

func TestProofVectors(t *testing.T) {
	for _, tt := range []struct {
		name, proof string
		want        Expected
		id, htu     string
		nonce, jkt  string
		iat         int64
	}{
		{"RFC 9449 section 4.1", rfcTokenProof,
			Expected{Method: "POST", URL: "https://server.example.com/token"},
			"-BwC3ESc6acc2lTc", "https://server.example.com/token", "", rfcThumbprint, 1562262616},
		{"RFC 9449 section 7.1", rfcResourceProof,
			Expected{Method: "GET", URL: "https://resource.example.org/protectedresource", AccessToken: rfcAccessToken, Thumbprint: rfcThumbprint},
			"e1j3V_bKic8-LAEB", "https://resource.example.org/protectedresource", "", rfcThumbprint, 1562262618},
		{"npm package dpop 2.1.2", npmProof,
			Expected{Method: "GET", URL: "https://api.example/a%20b/ü?x=1", AccessToken: "tok-1", Thumbprint: npmThumbprint},
			"7d34336d-0d00-4902-867a-3692fd4211c2", "https://api.example/a%20b/%C3%BC", "nonce1", npmThumbprint, 1795295358},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Verifier{Now: at(time.Unix(tt.iat, 0))}
			got, err := v.Verify(tt.proof, tt.want)
			if err != nil {
				t.Fatal(err)
			}
			if got.ID != tt.id || got.Method != tt.want.Method || got.URL != tt.htu || got.IssuedAt.Unix() != tt.iat ||
				got.Nonce != tt.nonce || got.Thumbprint != tt.jkt || got.Certificates != nil {
				t.Errorf("%+v", got)
			}
			if want := keyOf(t, rfcProofKey).Public(); tt.jkt == rfcThumbprint && !samePublicKey(got.Key.Key, want) {
				t.Error("another key")
			}
		})
	}
	t.Run("RFC 9449 section 7.1, ath", func(t *testing.T) {
		if got := string(appendATH(nil, rfcAccessToken)); got != "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo" {
			t.Errorf("ath = %q", got)
		}
	})
}

// Where the algorithm is deterministic, the signing code has to come up with
// the very octets of the RFC.
func TestSignVectors(t *testing.T) {
	for _, tt := range []struct {
		name, jwk, input, want string
		opts                   []Option
	}{
		{"RFC 7515 A.2", rfcRSAKey, rfcRSAInput, rfcRSASignature, []Option{WithAlgorithm(jose.RS256)}},
		{"RFC 8037 A.4", rfcEdKey, rfcEdInput, rfcEdSignature, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sig, err := newProver(t, keyOf(t, tt.jwk), tt.opts...).sign(t.Context(), []byte(tt.input))
			if got := base64.RawURLEncoding.EncodeToString(sig); err != nil || got != tt.want {
				t.Errorf("sign = %q, %v", got, err)
			}
		})
	}
}

// ECDSA is not deterministic. The signatures of the RFC are taken apart into
// the DER that a crypto.Signer would have returned, and have to come out of the
// signing code as they went in; and what the key of the RFC signs here verifies.
func TestECDSAVectors(t *testing.T) {
	for _, tt := range []struct {
		name, jwk, input, want string
		hash                   func([]byte) []byte
	}{
		{"RFC 7515 A.3", rfcP256Key, rfcP256Input, rfcP256Signature, func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }},
		{"RFC 7515 A.4", rfcP521Key, rfcP521Input, rfcP521Signature, func(b []byte) []byte { s := sha512.Sum512(b); return s[:] }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, want := keyOf(t, tt.jwk), unbase64(t, tt.want)
			r, s := new(big.Int).SetBytes(want[:len(want)/2]), new(big.Int).SetBytes(want[len(want)/2:])
			der, err := asn1.Marshal([]*big.Int{r, s})
			if err != nil {
				t.Fatal(err)
			}
			digest := tt.hash([]byte(tt.input))
			if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest, der) {
				t.Fatal("the vector itself does not verify")
			}
			fromRFC := stub{key.Public(), func(d []byte) ([]byte, error) {
				if string(d) != string(digest) {
					t.Errorf("signing %x, want %x", d, digest)
				}
				return der, nil
			}}
			got, err := newProver(t, fromRFC).sign(t.Context(), []byte(tt.input))
			if err != nil || string(got) != string(want) {
				t.Errorf("sign = %x, %v, want %x", got, err, want)
			}

			own, err := newProver(t, key).sign(t.Context(), []byte(tt.input))
			if err != nil || len(own) != len(want) {
				t.Fatalf("sign: %d octets, %v, want %d", len(own), err, len(want))
			}
			r.SetBytes(own[:len(own)/2])
			s.SetBytes(own[len(own)/2:])
			if !ecdsa.Verify(key.Public().(*ecdsa.PublicKey), digest, r, s) {
				t.Error("the new signature does not verify")
			}
		})
	}
}
