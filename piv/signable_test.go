package piv

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha512"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
)

func TestSignable(t *testing.T) {
	ecKey := &ecdsa.PublicKey{Curve: elliptic.P256()}
	rsaKey := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}
	edKey := ed25519.PublicKey(make([]byte, ed25519.PublicKeySize))
	for _, test := range []struct {
		name   string
		public crypto.PublicKey
		digest int
		opts   crypto.SignerOpts
		ok     bool
	}{
		{"ECDSA", ecKey, 32, crypto.SHA256, true},
		{"ECDSA, hash not told", ecKey, 32, crypto.Hash(0), true},
		{"ECDSA, long hash", ecKey, 64, crypto.SHA512, true},
		{"ECDSA, not a digest", ecKey, 31, crypto.SHA256, false},
		{"ECDSA, nothing", ecKey, 0, crypto.Hash(0), false},
		{"RSA", rsaKey, 32, crypto.SHA256, true},
		{"RSA-PSS", rsaKey, 32, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthEqualsHash}, true},
		{"RSA, not a digest", rsaKey, 33, crypto.SHA256, false},
		{"RSA, hash not told", rsaKey, 32, crypto.Hash(0), false},
		{"RSA, hash not linked in", rsaKey, 20, crypto.RIPEMD160, false},
		{"Ed25519", edKey, 1000, crypto.Hash(0), true},
		{"Ed25519, options", edKey, 0, &ed25519.Options{}, true},
		{"Ed25519, longest", edKey, maxMessage, crypto.Hash(0), true},
		{"Ed25519, too long", edKey, maxMessage + 1, crypto.Hash(0), false},
		{"Ed25519ph", edKey, 64, crypto.SHA512, false},
		{"Ed25519ctx", edKey, 64, &ed25519.Options{Context: "x"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := signable(test.public, make([]byte, test.digest), test.opts); (err == nil) != test.ok {
				t.Error(err)
			}
		})
	}
}

func TestLongMessageIsUnsupported(t *testing.T) {
	err := signable(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)), make([]byte, 6000), crypto.Hash(0))
	wantError(t, err, ErrUnsupported)
	if !strings.Contains(err.Error(), "P-256") {
		t.Errorf("no remedy: %v", err)
	}
}

func TestStrictDER(t *testing.T) {
	for in, want := range map[string]string{
		"3006020101020102":               "3006020101020102",     // as it should be
		"3008" + "02020001" + "02020002": "3006020101020102",     // zeros for nothing
		"3006" + "020181" + "020102":     "300702020081020102",   // a sign bit that is none
		"3008" + "02020081" + "02020080": "30080202008102020080", // zeros for a sign bit
		"3006020101020102" + "00":        "300602010102010200",   // no signature: left alone
		"3006040101020102":               "3006040101020102",
		"":                               "",
	} {
		raw, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(strictDER(raw)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestLaxSignature has a card that encodes as DER must not.
func TestLaxSignature(t *testing.T) {
	card, k := pinCard(t, PINPolicyNever, nil)
	card.change(func() { card.lax = true })
	for range 20 {
		mustSign(t, k)
	}
}

func TestSignRefusesBeforeAnybodyIsBothered(t *testing.T) {
	prompt := person()
	card, k := pinCard(t, PINPolicyAlways, prompt)
	if _, err := k.Sign(nil, fakeDigest[:5], crypto.SHA256); err == nil {
		t.Error("signed five bytes")
	}
	if got := card.commands(); got != "" || len(prompt.asked) != 0 {
		t.Errorf("sent %s, asked %d times", got, len(prompt.asked))
	}
}

// FuzzStrictDER: what comes out is the same when it goes in again, and a signature
// that was strict stays as it was.
func FuzzStrictDER(f *testing.F) {
	for _, seed := range []string{"3006020101020102", "30080202000102020002", "3006020181020102", "300602010102010200", ""} {
		raw, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		once := strictDER(in)
		if twice := strictDER(once); !bytes.Equal(once, twice) {
			t.Errorf("%x becomes %x, then %x", in, once, twice)
		}
		var strict struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(in, &strict); err != nil || strict.R.Sign() <= 0 || strict.S.Sign() <= 0 {
			return
		}
		if again, err := asn1.Marshal(strict); err == nil && bytes.Equal(in, again) && !bytes.Equal(in, once) {
			t.Errorf("%x becomes %x", in, once)
		}
	})
}
