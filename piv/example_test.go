package piv_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/piv"
)

// terminal asks on standard error and reads standard input. A real one would not
// show the PIN (golang.org/x/term, ReadPassword).
type terminal struct{ in *bufio.Reader }

func (t terminal) PIN(_ context.Context, r piv.PINRequest) (string, error) {
	fmt.Fprintf(os.Stderr, "PIN of YubiKey %d (%d attempts left): ", r.Serial, r.TriesLeft)
	line, err := t.in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

func (terminal) Touch(_ context.Context, r piv.TouchRequest) func() {
	fmt.Fprintf(os.Stderr, "Touch YubiKey %d now…", r.Serial)
	return func() { fmt.Fprintln(os.Stderr) }
}

func (t terminal) SpendLastTry(context.Context, piv.PINRequest) (bool, error) {
	fmt.Fprint(os.Stderr, "This is the last try. A wrong PIN blocks the YubiKey. Type yes to go on: ")
	line, err := t.in.ReadString('\n')
	return strings.TrimSpace(line) == "yes", err
}

var _ piv.LastTryPrompt = terminal{}

func ExampleOpen() {
	ctx := context.Background()
	key, err := piv.Open(ctx, piv.Options{
		Slot:   piv.SlotAuthentication,
		Prompt: terminal{bufio.NewReader(os.Stdin)},
	})
	if err != nil {
		log.Fatal(err) // the text says what to do about it
	}
	digest := sha256.Sum256([]byte("what is to be signed"))
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	signature, err := key.SignContext(ctx, digest[:], crypto.SHA256)
	cancel()
	var wrong *piv.WrongPINError
	switch {
	case errors.As(err, &wrong):
		log.Fatalf("wrong PIN, %d attempts left", wrong.TriesLeft)
	case errors.Is(err, piv.ErrTouchTimeout):
		log.Fatal("the card was not touched in time")
	case err != nil:
		log.Fatal(err)
	}
	fmt.Printf("%x\n", signature)
	key.Close()
}

func ExampleGenerate() {
	ctx := context.Background()
	key, err := piv.Generate(ctx, piv.Options{
		Serial: 12345678,
		Prompt: terminal{bufio.NewReader(os.Stdin)},
	}, piv.KeySpec{
		PINPolicy:   piv.PINPolicyOnce,
		TouchPolicy: piv.TouchPolicyAlways,
	})
	if errors.Is(err, piv.ErrSlotOccupied) {
		log.Fatal("there is a key already, which is better kept")
	}
	if err != nil {
		log.Fatal(err)
	}

	attestation, err := key.Attestation(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("counts as secure:", attestation.Secure())
	fmt.Println("certificates for the x5c header:", len(attestation.Certificates()))
	fmt.Println("to be stored:", key.Reference())
	key.Close()
}

func ExampleReference() {
	// Where a configuration keeps the key:
	var config struct {
		Key piv.Reference `json:"key"`
	}
	err := json.Unmarshal([]byte(`{
		"key": "yubikey:serial=12345678;slot=9a;sha256=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
	}`), &config)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Key.Serial, config.Key.Slot)

	// Open then accepts this key only, on this card and in this slot.
	o := config.Key.Options(terminal{bufio.NewReader(os.Stdin)})
	fmt.Println(o.Serial, o.Slot, o.Fingerprint == config.Key.Fingerprint)
	// Output:
	// 12345678 9a
	// 12345678 9a true
}

func ExampleCards() {
	cards, err := piv.Cards(context.Background())
	for _, card := range cards {
		fmt.Printf("%v (%v) in %s\n", card, card.FormFactor, card.Reader)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
