package virtual_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"fmt"
	"math/big"
	"testing"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// keyAlgorithms are those of key pairs, with whether they need firmware 5.7.
var keyAlgorithms = []struct {
	algorithm virtual.Algorithm
	new       bool
}{
	{virtual.P256, false},
	{virtual.P384, false},
	{virtual.RSA1024, false},
	{virtual.RSA2048, false},
	{virtual.RSA3072, true},
	{virtual.RSA4096, true},
	{virtual.Ed25519, true},
	{virtual.X25519, true},
}

// element is one data object of the tests' own parser, which takes minimal DER lengths only.
type element struct {
	tag   int
	value []byte
}

// elements parses data objects as encoding/asn1 does.
func elements(t *testing.T, b []byte) []element {
	t.Helper()
	var all []element
	for len(b) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(b, &v)
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		all = append(all, element{v.Class<<16 | v.Tag, v.Bytes})
		b = rest
	}
	return all
}

const (
	class0 = 0 << 16 // universal
	class1 = 1 << 16 // application
	class2 = 2 << 16 // context-specific
)

// value returns the value of the only element, which has to have the tag.
func value(t *testing.T, b []byte, tag int) []byte {
	t.Helper()
	all := elements(t, b)
	if len(all) != 1 || all[0].tag != tag {
		t.Fatalf("%x: want one element of tag %#x", b, tag)
	}
	return all[0].value
}

// parsePublic parses the public key of GENERATE and GET METADATA.
func parsePublic(t *testing.T, algorithm virtual.Algorithm, b []byte) crypto.PublicKey {
	t.Helper()
	switch algorithm {
	case virtual.P256, virtual.P384:
		curve := elliptic.P256()
		if algorithm == virtual.P384 {
			curve = elliptic.P384()
		}
		key, err := ecdsa.ParseUncompressedPublicKey(curve, value(t, b, class2|6))
		if err != nil {
			t.Fatal(err)
		}
		return key
	case virtual.Ed25519:
		return ed25519.PublicKey(value(t, b, class2|6))
	case virtual.X25519:
		key, err := ecdh.X25519().NewPublicKey(value(t, b, class2|6))
		if err != nil {
			t.Fatal(err)
		}
		return key
	default:
		all := elements(t, b)
		if len(all) != 2 || all[0].tag != class2|1 || all[1].tag != class2|2 {
			t.Fatalf("%x is no RSA key", b)
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(all[0].value), E: int(new(big.Int).SetBytes(all[1].value).Int64())}
	}
}

// tagged encodes a data object with a minimal length.
func tagged(tag byte, value []byte) []byte {
	switch n := len(value); {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, value...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, value...)
	default:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, value...)
	}
}

// use sends GENERAL AUTHENTICATE with a challenge (0x81) or a point (0x85).
func (p program) use(slot virtual.Slot, algorithm virtual.Algorithm, tag byte, input []byte) ([]byte, virtual.StatusWord) {
	p.t.Helper()
	answer, sw := p.command(virtual.InsAuthenticate, byte(algorithm), byte(slot), tagged(0x7c, append([]byte{0x82, 0}, tagged(tag, input)...)))
	if sw != virtual.Success {
		return nil, sw
	}
	return value(p.t, value(p.t, answer, class1|0x1c), class2|2), sw
}

// checkKey uses the private key in a slot and checks the result with the public key.
func (p program) checkKey(slot virtual.Slot, algorithm virtual.Algorithm, public crypto.PublicKey) {
	p.t.Helper()
	message := []byte("what is signed")
	digest := sha256.Sum256(message)
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		signature, sw := p.use(slot, algorithm, 0x81, digest[:])
		if sw != virtual.Success || !ecdsa.VerifyASN1(public, digest[:], signature) {
			p.t.Errorf("signature %x, status %v", signature, sw)
		}
		ours, err := public.ECDH()
		if err != nil {
			p.t.Fatal(err)
		}
		p.checkAgreement(slot, algorithm, ours)
	case ed25519.PublicKey:
		signature, sw := p.use(slot, algorithm, 0x81, message)
		if sw != virtual.Success || !ed25519.Verify(public, message, signature) {
			p.t.Errorf("signature %x, status %v", signature, sw)
		}
	case *ecdh.PublicKey:
		p.checkAgreement(slot, algorithm, public)
	case *rsa.PublicKey:
		p.checkRSA(slot, algorithm, public)
	default:
		p.t.Errorf("public key of type %T", public)
	}
}

func (p program) checkAgreement(slot virtual.Slot, algorithm virtual.Algorithm, public *ecdh.PublicKey) {
	p.t.Helper()
	peer, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	want, err := peer.ECDH(public)
	if err != nil {
		p.t.Fatal(err)
	}
	got, sw := p.use(slot, algorithm, 0x85, peer.PublicKey().Bytes())
	if sw != virtual.Success || !bytes.Equal(got, want) {
		p.t.Errorf("shared secret %x, status %v; want %x", got, sw, want)
	}
}

// checkRSA decrypts what was encrypted with OAEP, and signs a block that PKCS #1 v1.5 accepts.
func (p program) checkRSA(slot virtual.Slot, algorithm virtual.Algorithm, public *rsa.PublicKey) {
	p.t.Helper()
	ciphertext, err := rsa.EncryptPKCS1v15(rand.Reader, public, []byte("secret"))
	if err != nil {
		p.t.Fatal(err)
	}
	plain, sw := p.use(slot, algorithm, 0x81, ciphertext)
	if sw != virtual.Success || !bytes.HasPrefix(plain, []byte{0, 2}) || !bytes.HasSuffix(plain, []byte("\x00secret")) {
		p.t.Errorf("decrypted %x, status %v", plain, sw)
	}
	digest := sha512.Sum512([]byte("what is signed"))
	info := append([]byte("\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"), digest[:]...)
	block := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, public.Size()-3-len(info))...)
	signature, sw := p.use(slot, algorithm, 0x81, append(append(block, 0), info...))
	if sw != virtual.Success || rsa.VerifyPKCS1v15(public, crypto.SHA512, digest[:], signature) != nil {
		p.t.Errorf("signature %x, status %v", signature, sw)
	}
}

func TestGenerate(t *testing.T) {
	for _, firmware := range []virtual.Firmware{virtual.Firmware54, virtual.Firmware57} {
		for _, test := range keyAlgorithms {
			t.Run(firmware.String()+"/"+test.algorithm.String(), func(t *testing.T) {
				p := newProgram(t, virtual.Config{Firmware: firmware})
				data := []byte{0xac, 9, 0x80, 1, byte(test.algorithm), 0xaa, 1, byte(virtual.PINNever), 0xab, 1, byte(virtual.TouchNever)}
				if _, sw := p.command(virtual.InsGenerate, 0, 0x9c, data); sw != virtual.SecurityNotSatisfied {
					t.Errorf("without management key: status %v", sw)
				}
				p.authenticate()
				answer, sw := p.command(virtual.InsGenerate, 0, 0x9c, data)
				if test.new && !firmware.AtLeast(5, 7, 0) {
					if sw != virtual.IncorrectData {
						t.Errorf("status %v from firmware without it", sw)
					}
					return
				}
				if sw != virtual.Success {
					t.Fatalf("GENERATE: %v", sw)
				}
				public := parsePublic(t, test.algorithm, value(t, answer, class1|0x49))
				p.checkKey(virtual.SlotSignature, test.algorithm, public)

				metadata, sw := p.command(virtual.InsGetMetadata, 0, 0x9c, nil)
				if sw != virtual.Success {
					t.Fatalf("GET METADATA: %v", sw)
				}
				checkMetadata(t, metadata, test.algorithm, "0101 01", public)
			})
		}
	}
}

// checkMetadata compares the four elements of a key's metadata; rest is policies and origin.
func checkMetadata(t *testing.T, metadata []byte, algorithm virtual.Algorithm, rest string, public crypto.PublicKey) {
	t.Helper()
	all := elements(t, metadata)
	if len(all) != 4 || all[0].tag != class0|1 || all[1].tag != class0|2 || all[2].tag != class0|3 || all[3].tag != class0|4 {
		t.Fatalf("metadata %x", metadata)
	}
	if got := append(append([]byte(nil), all[1].value...), all[2].value...); !bytes.Equal(got, unhex(t, rest)) {
		t.Errorf("policies and origin %x, want %s", got, rest)
	}
	if !bytes.Equal(all[0].value, []byte{byte(algorithm)}) {
		t.Errorf("algorithm %x", all[0].value)
	}
	key, ok := public.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(parsePublic(t, algorithm, all[3].value)) {
		t.Errorf("public key %x", all[3].value)
	}
}

func TestGenerateMistakes(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	p.authenticate()
	p.expectAll(
		"0047019A 05 AC03800111 -> 6A86",
		"00470004 05 AC03800111 -> 6A86", // SP 800-73-4 knows a slot 04, a YubiKey does not
		"0047009B 05 AC03800111 -> 6A86",
		"00470081 05 AC03800111 -> 6A86",
		"00470096 05 AC03800111 -> 6A86",
		"0047009A 05 AC03800122 -> 6A80",
		"0047009A 06 AC0480021111 -> 6A80",
		"0047009A 02 AC00 -> 6A80",
		"0047009A 08 AC06800111AA0104 -> 6A80", // a policy that needs a fingerprint reader
		"0047009A 08 AC06800111AB0104 -> 6A80",
		"0047009A 09 AC07800111AA020101 -> 6A80",
		"0047009A 05 AD03800111 -> 6A80",
		"0047009A 06 AC0380011100 -> 6A80",
		"0047009A -> 6A80",
		"00F7009A00 -> 6A88", // still empty
	)
}

// TestDefaultPolicies: without tags the slot decides: 9c wants the PIN always, 9e never, all others once.
func TestDefaultPolicies(t *testing.T) {
	tests := map[virtual.Slot]string{
		virtual.SlotAuthentication: "0201 01", virtual.SlotSignature: "0301 01", virtual.SlotKeyManagement: "0201 01",
		virtual.SlotCardAuthentication: "0101 01", 0x82: "0201 01", 0x95: "0201 01", virtual.SlotAttestation: "0201 01",
	}
	for slot, want := range tests {
		t.Run(slot.String(), func(t *testing.T) {
			p := newProgram(t, virtual.Config{})
			p.authenticate()
			answer, sw := p.command(virtual.InsGenerate, 0, byte(slot), unhex(t, "AC03800111"))
			if sw != virtual.Success {
				t.Fatalf("GENERATE: %v", sw)
			}
			metadata := p.must(fmt.Sprintf("00F700%v00", slot))
			checkMetadata(t, metadata, virtual.P256, want, parsePublic(t, virtual.P256, value(t, answer, class1|0x49)))
		})
	}
}

// importData encodes a private key for IMPORT ASYMMETRIC KEY.
func importData(t *testing.T, key crypto.PrivateKey) []byte {
	t.Helper()
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		b, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return tagged(0x06, b)
	case ed25519.PrivateKey:
		return tagged(0x07, key.Seed())
	case *ecdh.PrivateKey:
		return tagged(0x08, key.Bytes())
	case *rsa.PrivateKey:
		key.Precompute()
		var b []byte
		for i, n := range []*big.Int{key.Primes[0], key.Primes[1], key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv} {
			b = append(b, tagged(byte(i+1), n.FillBytes(make([]byte, key.Size()/2)))...)
		}
		return b
	default:
		t.Fatalf("key of type %T", key)
		return nil
	}
}

func newKey(t *testing.T, algorithm virtual.Algorithm) crypto.PrivateKey {
	t.Helper()
	var key crypto.PrivateKey
	var err error
	switch algorithm {
	case virtual.P256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case virtual.P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case virtual.Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case virtual.X25519:
		key, err = ecdh.X25519().GenerateKey(rand.Reader)
	default:
		bits := map[virtual.Algorithm]int{virtual.RSA1024: 1024, virtual.RSA2048: 2048, virtual.RSA3072: 3072, virtual.RSA4096: 4096}
		key, err = rsa.GenerateKey(rand.Reader, bits[algorithm])
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestImport(t *testing.T) {
	for _, firmware := range []virtual.Firmware{virtual.Firmware54, virtual.Firmware57} {
		for _, test := range keyAlgorithms {
			t.Run(firmware.String()+"/"+test.algorithm.String(), func(t *testing.T) {
				p := newProgram(t, virtual.Config{Firmware: firmware})
				key := newKey(t, test.algorithm)
				public := key.(interface{ Public() crypto.PublicKey }).Public()
				data := append(importData(t, key), 0xaa, 1, byte(virtual.PINNever), 0xab, 1, byte(virtual.TouchNever))
				if _, sw := p.command(virtual.InsImportKey, byte(test.algorithm), 0x9a, data); sw != virtual.SecurityNotSatisfied {
					t.Errorf("without management key: status %v", sw)
				}
				p.authenticate()
				_, sw := p.command(virtual.InsImportKey, byte(test.algorithm), 0x9a, data)
				if test.new && !firmware.AtLeast(5, 7, 0) {
					if sw != virtual.IncorrectData {
						t.Errorf("status %v from firmware without it", sw)
					}
					return
				}
				if sw != virtual.Success {
					t.Fatalf("IMPORT: %v", sw)
				}
				p.checkKey(virtual.SlotAuthentication, test.algorithm, public)
				metadata, sw := p.command(virtual.InsGetMetadata, 0, 0x9a, nil)
				if sw != virtual.Success {
					t.Fatalf("GET METADATA: %v", sw)
				}
				checkMetadata(t, metadata, test.algorithm, "0101 02", public)
				p.expect("00F99A0000", virtual.IncorrectData) // nobody can attest where this key was made
			})
		}
	}
}

func TestImportMistakes(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	p.authenticate()
	key := newKey(t, virtual.RSA1024).(*rsa.PrivateKey)
	good := importData(t, key)
	tests := []struct {
		name      string
		algorithm virtual.Algorithm
		data      []byte
	}{
		{"empty", virtual.P256, nil},
		{"not TLV", virtual.P256, []byte{6}},
		{"short scalar", virtual.P256, tagged(6, make([]byte, 31))},
		{"zero scalar", virtual.P256, tagged(6, make([]byte, 32))},
		{"scalar of another curve", virtual.P384, tagged(6, bytes.Repeat([]byte{1}, 32))},
		{"short seed", virtual.Ed25519, tagged(7, make([]byte, 31))},
		{"X25519", virtual.X25519, tagged(8, make([]byte, 31))},
		{"RSA of another size", virtual.RSA2048, good},
		{"one prime", virtual.RSA1024, good[:66]},
		{"not primes", virtual.RSA1024, append(tagged(1, bytes.Repeat([]byte{0xf0}, 64)), tagged(2, bytes.Repeat([]byte{0xee}, 64))...)},
		{"small primes", virtual.RSA1024, append(tagged(1, append(make([]byte, 63), 7)), tagged(2, append(make([]byte, 63), 11))...)},
		{"policy", virtual.Ed25519, append(tagged(7, make([]byte, 32)), 0xaa, 1, 9)},
		{"policy length", virtual.Ed25519, append(tagged(7, make([]byte, 32)), 0xaa, 0)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, sw := p.command(virtual.InsImportKey, byte(test.algorithm), 0x9a, test.data); sw != virtual.IncorrectData {
				t.Errorf("status %v, want 6A80", sw)
			}
		})
	}
	if _, sw := p.command(virtual.InsImportKey, byte(virtual.Ed25519), 0x9b, tagged(7, make([]byte, 32))); sw != virtual.IncorrectP1P2 {
		t.Errorf("into slot 9b: status %v", sw)
	}
	p.expect("00F7009A00", virtual.ReferenceNotFound)
}

func TestMetadata(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	check := func(name, apdu, want string) {
		t.Helper()
		if got := p.must(apdu); !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%s: %X, want %s", name, got, want)
		}
	}
	check("PIN", "00F7008000", "0101FF 050101 06020303")
	check("PUK", "00F7008100", "0101FF 050101 06020303")
	check("management key", "00F7009B00", "01010A 02020001 050101")
	p.expect(verifyWrong, 0x63c2)
	p.must(changePIN)
	p.must(changePUK)
	p.expect(verifyWrong, 0x63c2)
	p.authenticate()
	p.must("00FFFFFE 1B 0A9B18 000102030405060708090A0B0C0D0E0F1011121314151617")
	check("changed PIN", "00F7008000", "0101FF 050100 06020302")
	check("changed PUK", "00F7008100", "0101FF 050100 06020303")
	check("changed management key", "00F7009B00", "01010A 02020002 050100")
	p.expectAll("00F7019A00 -> 6A86", "00F7009A00 -> 6A88", "00F7000400 -> 6A88", "00F7009600 -> 6A88")

	old := newProgram(t, virtual.Config{Firmware: virtual.Firmware54})
	if got := old.must("00F7009B00"); !bytes.Equal(got, unhex(t, "010103 02020001 050101")) {
		t.Errorf("management key of firmware 5.4: %X", got)
	}

	f9, sw := p.command(virtual.InsGetMetadata, 0, 0xf9, nil)
	cert, err := p.card.AttestationCertificate()
	if sw != virtual.Success || err != nil {
		t.Fatal(sw, err)
	}
	checkMetadata(t, f9, virtual.RSA2048, "0201 02", cert.PublicKey)
}

func TestGenerateKeyWithoutCommands(t *testing.T) {
	p := newProgram(t, virtual.Config{Firmware: virtual.Firmware54})
	if _, err := p.card.GenerateKey(virtual.SlotManagement, virtual.P256, 0, 0); err == nil {
		t.Error("made a key in slot 9b")
	}
	if _, err := p.card.GenerateKey(virtual.SlotAuthentication, virtual.Ed25519, 0, 0); err == nil {
		t.Error("made an Ed25519 key with firmware 5.4")
	}
	public, err := p.card.GenerateKey(virtual.SlotKeyManagement, virtual.P384, virtual.PINNever, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.checkKey(virtual.SlotKeyManagement, virtual.P384, public)
	p.card.DeleteKey(virtual.SlotKeyManagement)
	if _, sw := p.use(virtual.SlotKeyManagement, virtual.P384, 0x81, make([]byte, 48)); sw != virtual.IncorrectData {
		t.Errorf("status %v from an empty slot", sw)
	}
}
