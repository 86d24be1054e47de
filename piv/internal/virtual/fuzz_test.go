package virtual_test

import (
	"bytes"
	"testing"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// FuzzCard sends a card whatever comes: pieces of the input, each with a byte for its length. Without the PIN nobody is let
// in, and without the management key nothing changes.
func FuzzCard(f *testing.F) {
	f.Fuzz(func(t *testing.T, input []byte) {
		for _, firmware := range profiles {
			card, err := virtual.New(virtual.Config{Firmware: firmware})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := card.GenerateKey(virtual.SlotAuthentication, virtual.P256, virtual.PINOnce, virtual.TouchNever); err != nil {
				t.Fatal(err)
			}
			attack(t, card, input)
		}
	})
}

func attack(t *testing.T, card *virtual.Card, input []byte) {
	t.Helper()
	knowsPIN := true // its digits may come in several parts
	for _, digit := range []byte(virtual.DefaultPIN) {
		knowsPIN = knowsPIN && bytes.IndexByte(input, digit) >= 0
	}
	for rest := input; len(rest) > 0; {
		n := min(int(rest[0]), len(rest)-1)
		answer, err := card.Transmit(t.Context(), rest[1:1+n])
		if err != nil || len(answer) < 2 {
			t.Fatalf("%x: answer %x, %v", rest[1:1+n], answer, err)
		}
		rest = rest[1+n:]
	}
	if card.PINVerified() && !knowsPIN {
		t.Error("PIN verified without the PIN")
	}
	if tries := card.PINTries(); tries < 0 || tries > virtual.DefaultTries {
		t.Errorf("%d tries left", tries)
	}
	for _, e := range card.Log() {
		switch e.INS {
		case virtual.InsGenerate, virtual.InsImportKey, virtual.InsPutData, virtual.InsSetManagement, virtual.InsSetPINRetries:
			if e.Status == virtual.Success && e.CLA == 0 {
				t.Errorf("%+v without management key", e)
			}
		case virtual.InsAuthenticate:
			if e.P2 == 0x9a && e.Status == virtual.Success && e.CLA == 0 && !knowsPIN {
				t.Errorf("%+v without PIN", e)
			}
		}
	}
}
