package piv

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// realChain reads the attestation of a real card.
func realChain(tb testing.TB, name string) []*x509.Certificate {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	var chain []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return chain
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			tb.Fatal(err)
		}
		chain = append(chain, cert)
	}
}

// virtualChain lets a virtual card attest a key; no PC/SC is involved.
func virtualChain(tb testing.TB, firmware virtual.Firmware, pin virtual.PINPolicy, touch virtual.TouchPolicy) (*virtual.Card, []*x509.Certificate) {
	tb.Helper()
	card, err := virtual.New(virtual.Config{Firmware: firmware})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := card.GenerateKey(virtual.SlotAuthentication, virtual.P256, pin, touch); err != nil {
		tb.Fatal(err)
	}
	transmit(tb, card, "\x00\xa4\x04\x00\x05\xa0\x00\x00\x03\x08")
	slot, err := x509.ParseCertificate(transmit(tb, card, "\x00\xf9\x9a\x00\x00"))
	if err != nil {
		tb.Fatal(err)
	}
	device, err := card.AttestationCertificate()
	if err != nil {
		tb.Fatal(err)
	}
	return card, []*x509.Certificate{slot, device}
}

// transmit sends a command and collects the answer.
func transmit(tb testing.TB, card *virtual.Card, command string) []byte {
	tb.Helper()
	var data []byte
	for {
		answer, err := card.Transmit(tb.Context(), []byte(command))
		if err != nil {
			tb.Fatal(err)
		}
		n := len(answer) - 2
		data = append(data, answer[:n]...)
		switch {
		case answer[n] == 0x61:
			command = "\x00\xc0\x00\x00\x00"
		case answer[n] == 0x90 && answer[n+1] == 0:
			return data
		default:
			tb.Fatalf("status %x", answer[n:])
		}
	}
}

func trustIn(card *virtual.Card) Trust {
	return Trust{Roots: card.CA().Roots(), Intermediates: card.CA().IntermediatePool()}
}

func TestVerifyRealCards(t *testing.T) {
	for name, want := range map[string]Attestation{
		"yubikey5.pem": {Serial: 15732500, Firmware: Version{5, 4, 3}, FormFactor: FormFactor(4)},
		"yubikey4.pem": {Firmware: Version{4, 3, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			chain := realChain(t, name)
			before := *chain[1]
			got, err := VerifyAttestation(chain, Trust{})
			if err != nil {
				t.Fatal(err)
			}
			if got.Serial != want.Serial || got.Firmware != want.Firmware || got.FormFactor != want.FormFactor || got.Slot != SlotAuthentication {
				t.Errorf("got %+v", got)
			}
			if got.PINPolicy != PINPolicyOnce || got.TouchPolicy != TouchPolicyNever || got.Secure() {
				t.Errorf("PIN %v, touch %v, secure %v", got.PINPolicy, got.TouchPolicy, got.Secure())
			}
			if !samePublicKey(got.PublicKey, chain[0].PublicKey) {
				t.Error("another public key")
			}
			if certs := got.Certificates(); len(certs) != 2 || !certs[0].Equal(chain[0]) || !certs[1].Equal(chain[1]) {
				t.Errorf("%d certificates", len(certs))
			}
			if chain[1].IsCA != before.IsCA || chain[1].BasicConstraintsValid != before.BasicConstraintsValid {
				t.Error("the caller's certificate was changed")
			}
		})
	}
}

func TestVerifyVirtualCards(t *testing.T) {
	for _, firmware := range []virtual.Firmware{virtual.Firmware43, virtual.Firmware52, virtual.Firmware57} {
		t.Run(firmware.String(), func(t *testing.T) {
			card, chain := virtualChain(t, firmware, virtual.PINOnce, virtual.TouchCached)
			a, err := VerifyAttestation(chain, trustIn(card))
			if err != nil {
				t.Fatal(err)
			}
			if !a.Secure() {
				t.Errorf("not secure: %+v", a)
			}
			// The chain that goes over the wire is complete: the other side
			// needs nothing but the root.
			if _, err := VerifyAttestation(a.Certificates(), Trust{Roots: card.CA().Roots()}); err != nil {
				t.Errorf("the chain of Certificates: %v", err)
			}
			if certs := a.Certificates(); len(certs) != 2+len(card.CA().Intermediates()) || slices.ContainsFunc(certs, card.CA().Root().Equal) {
				t.Errorf("%d certificates, or the root is among them", len(certs))
			}
		})
	}
}

func TestSecure(t *testing.T) {
	for _, test := range []struct {
		pin   PINPolicy
		touch TouchPolicy
		want  bool
	}{
		{PINPolicyOnce, TouchPolicyAlways, true},
		{PINPolicyAlways, TouchPolicyCached, true},
		{PINPolicyMatchOnce, TouchPolicyAlways, true},
		{PINPolicyMatchAlways, TouchPolicyAlways, true},
		{PINPolicyNever, TouchPolicyAlways, false},
		{PINPolicyOnce, TouchPolicyNever, false},
		{PINPolicyNever, TouchPolicyNever, false},
		{0, TouchPolicyAlways, false},
		{PINPolicyOnce, 0, false},
		{6, TouchPolicyAlways, false},
		{PINPolicyOnce, 4, false},
	} {
		a := &Attestation{PINPolicy: test.pin, TouchPolicy: test.touch, verified: true}
		if got := a.Secure(); got != test.want {
			t.Errorf("PIN %v, touch %v: Secure() = %v", test.pin, test.touch, got)
		}
		a.verified = false
		if a.Secure() {
			t.Errorf("PIN %v, touch %v: secure without verification", test.pin, test.touch)
		}
	}
	if (*Attestation)(nil).Secure() {
		t.Error("no attestation is secure")
	}
}

func TestVerifyRefuses(t *testing.T) {
	card, ownChain := virtualChain(t, virtual.Firmware57, virtual.PINOnce, virtual.TouchAlways)
	other, otherChain := virtualChain(t, virtual.Firmware43, virtual.PINOnce, virtual.TouchAlways)
	yubikey5, yubikey4 := realChain(t, "yubikey5.pem"), realChain(t, "yubikey4.pem")
	bothDevices := card.CA().IntermediatePool()
	bothDevices.AddCert(ownChain[1])
	forged := *ownChain[0]
	forged.Signature = bytes.Clone(forged.Signature)
	forged.Signature[8] ^= 1
	for _, test := range []struct {
		name  string
		chain []*x509.Certificate
		trust Trust
		read  bool // as far as the statement itself
	}{
		{"nothing", nil, Trust{}, false},
		{"slot alone", yubikey5[:1], Trust{}, false},
		{"nil", []*x509.Certificate{nil, nil}, Trust{}, false},
		{"card nil", []*x509.Certificate{yubikey5[0], nil}, Trust{}, false},
		{"intermediate nil", []*x509.Certificate{yubikey5[0], yubikey5[1], nil}, Trust{}, false},
		{"not parsed", []*x509.Certificate{{}, {}}, Trust{}, false},
		{"not a slot's certificate", []*x509.Certificate{yubikey5[1], yubikey5[1]}, Trust{}, false},
		{"other card", []*x509.Certificate{yubikey5[0], yubikey4[1]}, Trust{}, true},
		{"other card, old", []*x509.Certificate{yubikey4[0], yubikey5[1]}, Trust{}, true},
		{"virtual card to Yubico's roots", ownChain, Trust{}, true},
		{"virtual card to another maker's roots", ownChain, trustIn(other), true},
		{"other way round", otherChain, trustIn(card), true},
		{"real card to other roots", yubikey5, trustIn(card), true},
		{"intermediates missing", ownChain, Trust{Roots: card.CA().Roots()}, true},
		{"forged signature", []*x509.Certificate{&forged, ownChain[1]}, trustIn(card), true},
		{
			"card that did not sign beside one that did",
			[]*x509.Certificate{ownChain[0], otherChain[1]},
			Trust{Roots: card.CA().Roots(), Intermediates: bothDevices},
			true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := VerifyAttestation(test.chain, test.trust)
			if a != nil || !errors.Is(err, ErrAttestation) {
				t.Fatalf("VerifyAttestation = %+v, %v", a, err)
			}
			var typed *AttestationError
			if errors.As(err, &typed) != test.read {
				t.Fatalf("%T: %v", err, err)
			}
			if !test.read {
				return
			}
			if typed.Attestation.Secure() {
				t.Error("secure without verification")
			}
			if len(typed.Attestation.Certificates()) != len(test.chain) {
				t.Error("the chain got lost")
			}
		})
	}
}

func certificateWith(name string, extensions ...pkix.Extension) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, Extensions: extensions}
}

func TestParseAttestationRefuses(t *testing.T) {
	const name = subjectPrefix + "9a"
	for title, cert := range map[string]*x509.Certificate{
		"no subject":          certificateWith(""),
		"slot f9":             certificateWith(subjectPrefix + "f9"),
		"firmware, two bytes": certificateWith(name, pkix.Extension{Id: oidFirmware, Value: []byte{5, 7}}),
		"serial, no integer":  certificateWith(name, pkix.Extension{Id: oidSerial, Value: []byte{4, 1, 1}}),
		"serial, negative":    certificateWith(name, pkix.Extension{Id: oidSerial, Value: []byte{2, 1, 0xff}}),
		"serial, 33 bits":     certificateWith(name, pkix.Extension{Id: oidSerial, Value: []byte{2, 5, 1, 0, 0, 0, 0}}),
		"serial, more":        certificateWith(name, pkix.Extension{Id: oidSerial, Value: []byte{2, 1, 1, 0}}),
		"policies, one byte":  certificateWith(name, pkix.Extension{Id: oidPolicy, Value: []byte{2}}),
		"form factor, none":   certificateWith(name, pkix.Extension{Id: oidFormFactor}),
	} {
		t.Run(title, func(t *testing.T) {
			if a, err := parseAttestation(cert); err == nil {
				t.Errorf("parseAttestation = %+v", a)
			}
		})
	}
}

func TestContradicts(t *testing.T) {
	mine, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	card := Card{Serial: 7, Firmware: Version{5, 7, 4}}
	key := slotInfo{mine.Public(), PINPolicyOnce, TouchPolicyAlways}
	good := Attestation{
		Serial: 7, Firmware: Version{5, 7, 4}, Slot: SlotAuthentication,
		PINPolicy: PINPolicyOnce, TouchPolicy: TouchPolicyAlways, PublicKey: mine.Public(),
	}
	for _, test := range []struct {
		name   string
		change func(*Attestation)
		want   string // part of the error; "" for none
	}{
		{"nothing", func(*Attestation) {}, ""},
		{"serial not told", func(a *Attestation) { a.Serial = 0 }, ""},
		{"key", func(a *Attestation) { a.PublicKey = foreign.Public() }, "different key"},
		{"no key", func(a *Attestation) { a.PublicKey = nil }, "different key"},
		{"serial", func(a *Attestation) { a.Serial = 8 }, "YubiKey 8"},
		{"slot", func(a *Attestation) { a.Slot = SlotSignature }, "slot 9c"},
		{"firmware", func(a *Attestation) { a.Firmware.Patch = 1 }, "5.7.1"},
		{"PIN policy", func(a *Attestation) { a.PINPolicy = PINPolicyAlways }, "PIN policy always"},
		{"touch policy", func(a *Attestation) { a.TouchPolicy = TouchPolicyCached }, "touch policy cached"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := good
			test.change(&a)
			err := a.contradicts(card, SlotAuthentication, key)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("contradicts: %v", err)
			}
		})
	}
	// What the card does not tell, it cannot contradict.
	if err := good.contradicts(card, SlotAuthentication, slotInfo{public: mine.Public()}); err != nil {
		t.Error(err)
	}
}

// stating is a card that states this.
type stating struct {
	token
	chain []*x509.Certificate
}

func (s stating) attest(Slot) (*x509.Certificate, error)      { return s.chain[0], nil }
func (s stating) certificate(Slot) (*x509.Certificate, error) { return s.chain[1], nil }

// TestStatementIsCompared has a statement that leads to a trusted root, but is
// about something else than the key at hand.
func TestStatementIsCompared(t *testing.T) {
	device, chain := virtualChain(t, virtual.Firmware57, virtual.PINOnce, virtual.TouchAlways)
	card := Card{Serial: device.Serial(), Firmware: Version{5, 7, 4}}
	key := slotInfo{chain[0].PublicKey, PINPolicyOnce, TouchPolicyAlways}
	attest := func(card Card, key slotInfo) (*Attestation, error) {
		c := &conn{token: stating{chain: chain}, card: card, slots: map[Slot]slotInfo{SlotAuthentication: key}}
		return c.attestation(SlotAuthentication, trustIn(device))
	}
	if a, err := attest(card, key); err != nil || !a.Secure() {
		t.Fatalf("attestation = %+v, %v", a, err)
	}
	otherKey := realChain(t, "yubikey5.pem")[0].PublicKey
	for name, test := range map[string]struct {
		card Card
		key  slotInfo
		want error
	}{
		"key":    {card, slotInfo{otherKey, PINPolicyOnce, TouchPolicyAlways}, ErrKeyMismatch},
		"policy": {card, slotInfo{chain[0].PublicKey, PINPolicyNever, TouchPolicyAlways}, ErrAttestation},
		"card":   {Card{Serial: 1, Firmware: card.Firmware}, key, ErrAttestation},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := attest(test.card, test.key)
			wantError(t, err, test.want, ErrAttestation)
			var unproven *AttestationError
			if !errors.As(err, &unproven) || unproven.Attestation.Secure() {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestSamePublicKey(t *testing.T) {
	type opaque struct{ crypto.PublicKey }
	if samePublicKey(opaque{}, opaque{}) || samePublicKey(nil, nil) {
		t.Error("keys that cannot be compared are the same")
	}
}

func FuzzParseAttestation(f *testing.F) {
	for _, name := range []string{"yubikey4.pem", "yubikey5.pem"} {
		f.Add(realChain(f, name)[0].Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		a, err := parseAttestation(cert)
		if err != nil {
			return
		}
		if !a.Slot.valid() || a.Secure() {
			t.Errorf("parsed %+v", a)
		}
	})
}

func FuzzParseSerial(f *testing.F) {
	f.Add([]byte{2, 4, 0, 0xf0, 0x0f, 0x14})
	f.Fuzz(func(t *testing.T, der []byte) {
		serial, err := parseSerial(der)
		if err != nil {
			return
		}
		back, err := asn1.Marshal(int64(serial))
		if err != nil || !bytes.Equal(back, der) {
			t.Errorf("%x is %d, which is %x, %v", der, serial, back, err)
		}
	})
}
