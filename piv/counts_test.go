//go:build cgo && linux

package piv_test

import (
	"crypto"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	gopiv "github.com/go-piv/piv-go/v2/piv"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// TestCommandsPerProof counts the APDUs of a signature: with the connection that
// the one before left (warm), on a card that has no power yet (cold), and on one
// that still remembers the PIN (soon after; with "always" it is made to forget it,
// or it would not tell how many tries it allows). Beside it are those of the obvious
// program, which opens the card with go-piv for every signature, knows the public
// key, and does not look which card it is or what the slot holds.
func TestCommandsPerProof(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "%-10s %-8s %5s %5s %5s   %s\n", "firmware", "PIN", "warm", "cold", "soon", "piv.Open + PrivateKey + Sign")
	for _, test := range []struct {
		firmware         virtual.Firmware
		pin              piv.PINPolicy
		warm, cold, soon int
	}{
		{virtual.Firmware57, piv.PINPolicyNever, 1, 5, 5},
		{virtual.Firmware57, piv.PINPolicyOnce, 1, 8, 6},
		{virtual.Firmware57, piv.PINPolicyAlways, 2, 8, 12},
		{virtual.Firmware531, piv.PINPolicyOnce, 1, 9, 5},
		{virtual.Firmware52, piv.PINPolicyOnce, 1, 9, 8},
		{virtual.Firmware43, piv.PINPolicyOnce, 1, 11, 11},
	} {
		t.Run(fmt.Sprint(test.firmware, test.pin), func(t *testing.T) {
			card := pcscd.Start(t, virtual.Config{Firmware: test.firmware})
			k := generated(t, card, trusting(card, &person{}), test.pin, piv.TouchPolicyNever)
			count := func(prepare func()) int {
				free(t, card)
				prepare()
				card.ResetLog()
				mustSign(t, k)
				return card.Count()
			}
			cold := count(card.PowerCycle)
			warm := cold
			for range 5 { // a machine under load can be slower than the grace period
				card.ResetLog()
				mustSign(t, k)
				warm = min(warm, card.Count())
			}
			soon := count(func() {})
			free(t, card)
			card.PowerCycle()
			naive := naiveCount(t, card, k.Public())
			fmt.Fprintf(&table, "%-10v %-8v %5d %5d %5d   %d\n", test.firmware, test.pin, warm, cold, soon, naive)
			if warm != test.warm || cold != test.cold || soon != test.soon {
				t.Errorf("%d warm, %d cold, %d soon after; want %d, %d, %d", warm, cold, soon, test.warm, test.cold, test.soon)
			}
		})
	}
	t.Logf("\n%s", table.String())
}

// naiveCount returns how many APDUs the obvious program sends for a signature.
func naiveCount(t *testing.T, card *pcscd.Card, public crypto.PublicKey) int {
	t.Helper()
	card.ResetLog()
	yk, err := gopiv.Open(card.Reader())
	if err != nil {
		t.Fatal(err)
	}
	defer yk.Close()
	private, err := yk.PrivateKey(gopiv.SlotAuthentication, public, gopiv.KeyAuth{
		PINPrompt: func() (string, error) { return virtual.DefaultPIN, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := private.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	return card.Count()
}
