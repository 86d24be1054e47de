//go:build cgo && linux

package piv_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// person is the one in front of the card: they enter these PINs, one after the
// other, and the last one from then on.
type person struct {
	mu      sync.Mutex
	pins    []string
	asked   []piv.PINRequest
	touches int
	blinks  chan struct{} // closed at the first touch, if set
}

func (p *person) PIN(_ context.Context, r piv.PINRequest) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r)
	if len(p.pins) == 0 {
		return virtual.DefaultPIN, nil
	}
	pin := p.pins[0]
	p.pins = p.pins[1:]
	return pin, nil
}

func (p *person) Touch(context.Context, piv.TouchRequest) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.touches++
	if p.blinks != nil && p.touches == 1 {
		close(p.blinks)
	}
	return func() {}
}

func (p *person) count() (pins, touches int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked), p.touches
}

// trusting are options that believe the maker of a virtual card.
func trusting(card *pcscd.Card, prompt piv.Prompt) piv.Options {
	return piv.Options{
		Serial: card.Serial(),
		Prompt: prompt,
		Trust:  piv.Trust{Roots: card.CA().Roots(), Intermediates: card.CA().IntermediatePool()},
	}
}

// generated makes a P-256 key in slot 9a.
func generated(t *testing.T, card *pcscd.Card, o piv.Options, pin piv.PINPolicy, touch piv.TouchPolicy) *piv.Key {
	t.Helper()
	k, err := piv.Generate(t.Context(), o, piv.KeySpec{PINPolicy: pin, TouchPolicy: touch, Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

var digest = sha256.Sum256([]byte("proof"))

// sign signs, and checks the signature if there is one.
func sign(ctx context.Context, k *piv.Key) error {
	signature, err := k.SignContext(ctx, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if !verifies(k.Public(), crypto.SHA256, digest[:], signature) {
		return errors.New("the signature does not verify")
	}
	return nil
}

func mustSign(t *testing.T, k *piv.Key) {
	t.Helper()
	if err := sign(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

// verifies checks a signature with the standard library.
func verifies(public crypto.PublicKey, opts crypto.SignerOpts, digest, signature []byte) bool {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, digest, signature)
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(key, opts.HashFunc(), digest, signature, pss) == nil
		}
		return rsa.VerifyPKCS1v15(key, opts.HashFunc(), digest, signature) == nil
	}
	return false
}

// hold lets another program have the card, as soon as it can.
func hold(t *testing.T, card *pcscd.Card, o pcscd.HoldOptions) *pcscd.Holder {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		h, err := card.Hold(ctx, o)
		if err == nil {
			t.Cleanup(h.Kill)
			return h
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // a real program, in real time
	}
}

// free waits until another program can open the card, and returns how long that
// took.
func free(t *testing.T, card *pcscd.Card) time.Duration {
	t.Helper()
	start := time.Now()
	h := hold(t, card, pcscd.HoldOptions{Exclusive: true})
	took := time.Since(start)
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	return took
}

func TestCardsOnPCSC(t *testing.T) {
	one := pcscd.Start(t, virtual.Config{Serial: 11, FormFactor: virtual.USBCNano})
	two := pcscd.Start(t, virtual.Config{Serial: 22, Firmware: virtual.Firmware43})
	cards, err := piv.Cards(t.Context())
	if err != nil || len(cards) != 2 {
		t.Fatalf("Cards = %v, %v", cards, err)
	}
	found := make(map[uint32]piv.Card)
	for _, c := range cards {
		found[c.Serial] = c
	}
	if c := found[11]; c.Firmware != (piv.Version{Major: 5, Minor: 7, Patch: 4}) || c.FormFactor != piv.FormFactor(4) || c.Reader != one.Reader() {
		t.Errorf("first card: %+v", c)
	}
	if c := found[22]; c.Firmware != (piv.Version{Major: 4, Minor: 3, Patch: 7}) || c.FormFactor != 0 || c.Reader != two.Reader() {
		t.Errorf("second card: %+v", c)
	}
}

func TestHundredSigners(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	prompt := &person{}
	k := generated(t, card, trusting(card, prompt), piv.PINPolicyOnce, piv.TouchPolicyCached)
	card.ResetLog()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := sign(t.Context(), k); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if pins, _ := prompt.count(); pins != 1 {
		t.Errorf("asked for the PIN %d times", pins)
	}
	if n := card.Count(virtual.InsAuthenticate); n != 100 {
		t.Errorf("%d signatures", n)
	}
}

// TestIdleServiceLetsOthersIn has another program that wants the card while this
// one is idle, or waits for a person to enter the PIN.
func TestIdleServiceLetsOthersIn(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	k := generated(t, card, trusting(card, &person{}), piv.PINPolicyOnce, piv.TouchPolicyNever)
	for range 3 {
		mustSign(t, k)
		if took := free(t, card); took > time.Second {
			t.Errorf("another program got in after %v", took)
		}
	}
}

// slowPrompt shows a PIN prompt and waits.
type slowPrompt struct {
	shown  chan struct{}
	answer chan string
}

func (p slowPrompt) PIN(context.Context, piv.PINRequest) (string, error) {
	p.shown <- struct{}{}
	return <-p.answer, nil
}

func (p slowPrompt) Touch(context.Context, piv.TouchRequest) func() { return nil }

func TestPromptLetsOthersIn(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	prompt := slowPrompt{make(chan struct{}), make(chan string)}
	k := generated(t, card, trusting(card, prompt), piv.PINPolicyAlways, piv.TouchPolicyNever)
	result := make(chan error)
	go func() { result <- sign(t.Context(), k) }()
	<-prompt.shown
	if took := free(t, card); took > time.Second {
		t.Errorf("another program got in after %v", took)
	}
	prompt.answer <- virtual.DefaultPIN
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// TestServiceRestarts ends pcscd between two uses of a key.
func TestServiceRestarts(t *testing.T) {
	var k *piv.Key
	t.Run("before", func(t *testing.T) {
		card := pcscd.Start(t, virtual.Config{})
		var err error
		k, err = piv.Generate(t.Context(), trusting(card, nil), piv.KeySpec{PINPolicy: piv.PINPolicyNever, TouchPolicy: piv.TouchPolicyNever})
		if err != nil {
			t.Fatal(err)
		}
		mustSign(t, k)
	})
	t.Run("after", func(t *testing.T) {
		pcscd.Start(t, virtual.Config{}) // the same serial number, without the key
		if err := sign(t.Context(), k); !errors.Is(err, piv.ErrNoKey) {
			t.Errorf("error: %v", err)
		}
	})
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

func TestAlgorithms(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	pss := &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthEqualsHash}
	for _, test := range []struct {
		algorithm piv.Algorithm
		opts      []crypto.SignerOpts
	}{
		{piv.AlgorithmP256, []crypto.SignerOpts{crypto.SHA256, crypto.SHA512}},
		{piv.AlgorithmP384, []crypto.SignerOpts{crypto.SHA384, crypto.SHA256}},
		{piv.AlgorithmEd25519, []crypto.SignerOpts{crypto.Hash(0)}},
		{piv.AlgorithmRSA2048, []crypto.SignerOpts{crypto.SHA256, pss}},
		{piv.AlgorithmRSA3072, []crypto.SignerOpts{pss}},
	} {
		t.Run(test.algorithm.String(), func(t *testing.T) {
			k, err := piv.Generate(t.Context(), trusting(card, &person{}), piv.KeySpec{Algorithm: test.algorithm, Overwrite: true})
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			for _, opts := range test.opts {
				data := []byte("a message of any length, as Ed25519 signs it")
				if hash := opts.HashFunc(); hash != 0 {
					h := hash.New()
					h.Write(data)
					data = h.Sum(nil)
				}
				signature, err := k.Sign(nil, data, opts)
				if err != nil || !verifies(k.Public(), opts, data, signature) {
					t.Errorf("%T %v: %v", opts, opts.HashFunc(), err)
				}
			}
			if a, err := k.Attestation(t.Context()); err != nil || !a.Secure() {
				t.Errorf("Attestation = %+v, %v", a, err)
			}
		})
	}
}

func TestEverySlot(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	slots := []piv.Slot{piv.SlotAuthentication, piv.SlotSignature, piv.SlotKeyManagement, piv.SlotCardAuthentication}
	for slot := piv.SlotRetired1; slot <= piv.SlotRetired20; slot++ {
		slots = append(slots, slot)
	}
	for _, slot := range slots {
		public, err := card.GenerateKey(virtual.Slot(slot), virtual.P256, virtual.PINNever, virtual.TouchNever)
		if err != nil {
			t.Fatal(err)
		}
		o := trusting(card, nil)
		o.Slot = slot
		k, err := piv.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if !public.(*ecdsa.PublicKey).Equal(k.Public()) {
			t.Errorf("slot %v: another key", slot)
		}
		mustSign(t, k)
		a, err := k.Attestation(t.Context())
		if err != nil || a.Slot != slot {
			t.Errorf("slot %v: attestation = %+v, %v", slot, a, err)
		}
		k.Close()
	}
}

func TestReferenceOpensTheKey(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	k := generated(t, card, trusting(card, nil), piv.PINPolicyNever, piv.TouchPolicyNever)
	text, err := k.Reference().MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	stored, err := piv.ParseReference(string(text))
	if err != nil {
		t.Fatal(err)
	}
	again, err := piv.Open(t.Context(), stored.Options(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	mustSign(t, again)

	// The slot gets another key.
	generated(t, card, trusting(card, nil), piv.PINPolicyNever, piv.TouchPolicyNever)
	if _, err := piv.Open(t.Context(), stored.Options(nil)); !errors.Is(err, piv.ErrKeyMismatch) {
		t.Errorf("error: %v", err)
	}
	if err := sign(t.Context(), again); !errors.Is(err, piv.ErrKeyMismatch) {
		t.Errorf("error: %v", err)
	}
}

func TestTouchOnPCSC(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	prompt := &person{}
	k := generated(t, card, trusting(card, prompt), piv.PINPolicyOnce, piv.TouchPolicyAlways)
	card.SetTouch(virtual.TouchAfter(500 * time.Millisecond))
	mustSign(t, k)
	if pins, touches := prompt.count(); touches != 1 || pins != 1 {
		t.Errorf("%d touches announced, %d PINs asked for", touches, pins)
	}
}
