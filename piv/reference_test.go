package piv

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
)

const referenceText = "yubikey:serial=12345678;slot=9a;sha256=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

func testReference() Reference {
	r := Reference{Serial: 12345678, Slot: SlotAuthentication}
	for i := range r.Fingerprint {
		r.Fingerprint[i] = byte(i)
	}
	return r
}

func TestReferenceText(t *testing.T) {
	want := testReference()
	if got := want.String(); got != referenceText {
		t.Errorf("String() = %q", got)
	}
	got, err := ParseReference(referenceText)
	if err != nil || got != want {
		t.Errorf("ParseReference(%q) = %v, %v", referenceText, got, err)
	}
}

func TestReferenceJSON(t *testing.T) {
	type config struct{ Key Reference }
	data, err := json.Marshal(config{testReference()})
	if err != nil || string(data) != `{"Key":"`+referenceText+`"}` {
		t.Fatalf("Marshal = %s, %v", data, err)
	}
	var back config
	if err := json.Unmarshal(data, &back); err != nil || back.Key != testReference() {
		t.Errorf("Unmarshal = %+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"Key":"yubikey:"}`), &back); err == nil {
		t.Error("an empty reference was accepted")
	}
}

func TestReferenceIncomplete(t *testing.T) {
	for name, change := range map[string]func(*Reference){
		"serial":      func(r *Reference) { r.Serial = 0 },
		"slot":        func(r *Reference) { r.Slot = 0 },
		"fingerprint": func(r *Reference) { r.Fingerprint = [32]byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			r := testReference()
			change(&r)
			if text, err := r.MarshalText(); err == nil {
				t.Errorf("MarshalText() = %q", text)
			}
		})
	}
}

func TestReferenceOptions(t *testing.T) {
	r := testReference()
	o := r.Options(nil)
	if o.Serial != r.Serial || o.Slot != r.Slot || o.Fingerprint != r.Fingerprint {
		t.Errorf("Options = %+v", o)
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	replace := func(old, new string) string {
		s := strings.Replace(referenceText, old, new, 1)
		if s == referenceText {
			t.Fatalf("%q is not in the reference", old)
		}
		return s
	}
	for name, text := range map[string]string{
		"empty":               "",
		"other scheme":        replace("yubikey", "pkcs11"),
		"no serial":           replace("serial=12345678;", ""),
		"serial 0":            replace("12345678", "0"),
		"serial too large":    replace("12345678", "4294967296"),
		"serial with zero":    replace("12345678", "012345678"),
		"serial with sign":    replace("12345678", "+12345678"),
		"slot in upper case":  replace("9a", "9A"),
		"slot of management":  replace("9a", "9b"),
		"parts exchanged":     "yubikey:slot=9a;serial=12345678;" + referenceText[len("yubikey:serial=12345678;slot=9a;"):],
		"fingerprint short":   replace("Hh8", "Hh"),
		"fingerprint long":    referenceText + "AA",
		"fingerprint padded":  referenceText + "=",
		"other last bits":     replace("Hh8", "Hh9"),
		"more":                referenceText + ";pin=123456",
		"space":               " " + referenceText,
		"newline in the end":  referenceText + "\n",
		"newline inside":      replace("AAEC", "AA\nEC"),
		"standard alphabet":   replace("AAEC", "++EC"),
		"fingerprint zero":    "yubikey:serial=1;slot=9a;sha256=" + strings.Repeat("A", 43),
		"fingerprint missing": "yubikey:serial=12345678;slot=9a;sha256=",
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := ParseReference(text); err == nil {
				t.Errorf("ParseReference(%q) = %v", text, r)
			}
		})
	}
}

func TestFingerprint(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Fingerprint(key.Public())
	if err != nil || a == ([32]byte{}) {
		t.Fatalf("Fingerprint = %x, %v", a, err)
	}
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Fingerprint(private); err == nil {
		t.Error("a private key has a fingerprint")
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add(referenceText)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseReference(text)
		if err != nil {
			return
		}
		back, err := r.MarshalText()
		if err != nil || string(back) != text {
			t.Errorf("%q came back as %q, %v", text, back, err)
		}
	})
}
