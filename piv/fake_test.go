package piv

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakePCSC is a backend without PC/SC. Time passes in it by package time, so that
// it can be tested in a synctest bubble; what a card does is kept to what the code
// above it can notice. The real thing is in the tests against pcscd.
type fakePCSC struct {
	mu     sync.Mutex
	cards  map[string]*fakeCard // by reader; nil: the reader is empty
	failed error                // of readers, if set
}

func (p *fakePCSC) readers() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.cards)), p.failed
}

func (p *fakePCSC) connect(reader string) (token, error) {
	p.mu.Lock()
	card, ok := p.cards[reader]
	p.mu.Unlock()
	switch {
	case !ok:
		return nil, &pcscError{pcscUnknownReader, errors.New("unknown reader")}
	case card == nil:
		return nil, &pcscError{pcscNoCard, errors.New("no card in the reader")}
	}
	return card.connect()
}

// put puts a card into a reader; nil empties it.
func (p *fakePCSC) put(reader string, card *fakeCard) {
	p.mu.Lock()
	old := p.cards[reader]
	p.cards[reader] = card
	p.mu.Unlock()
	if old != nil {
		old.change(func() {
			old.open, old.verified = nil, false
			close(old.gone)
			old.gone = make(chan struct{})
		})
	}
}

type fakeKey struct {
	private *ecdsa.PrivateKey
	pin     PINPolicy
	touch   TouchPolicy

	imported bool // without a certificate
}

// fakeCard is a card, to the extent needed.
type fakeCard struct {
	mu       sync.Mutex
	number   uint32
	firmware Version
	keys     map[Slot]*fakeKey
	pin      string
	tries    int
	most     int
	verified bool
	fresh    bool // VERIFY was the last command

	open    *fakeToken
	gone    chan struct{} // closed when the card is pulled out
	foreign bool          // another program has it open
	hold    chan struct{} // connecting blocks until it is closed, if set
	noPIV   bool
	breaks  int   // how many of the next connections break while they are made
	refuses error // why nobody can connect, if set

	touchAfter time.Duration // when a finger comes; 0: at once
	noTouch    bool          // it never comes

	managementKey     string
	managementTouches TouchPolicy
	stored            []byte // under the PIN
	slowGeneration    time.Duration

	// failAt counts down the commands to the one that fails with failure: one
	// that PC/SC does not send, one whose answer is lost, or one that the card
	// answers so.
	failAt  int
	failure error
	notSent bool // of the failure

	lax bool // signatures have zero bytes for nothing

	inUse  bool
	log    []string
	signed []byte // the last digest
}

const fakeTouchTimeout = 15 * time.Second

func newFakeCard(number uint32) *fakeCard {
	return &fakeCard{
		number: number, firmware: Version{5, 7, 4}, keys: make(map[Slot]*fakeKey),
		pin: "123456", tries: 3, most: 3, gone: make(chan struct{}),
	}
}

// with puts a key into a slot.
func (c *fakeCard) with(slot Slot, pin PINPolicy, touch TouchPolicy) *fakeCard {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c.keys[slot] = &fakeKey{private: private, pin: pin, touch: touch}
	return c
}

func (c *fakeCard) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// commands returns the log since the last call.
func (c *fakeCard) commands() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	log := strings.Join(c.log, " ")
	c.log = nil
	return log
}

func (c *fakeCard) connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open != nil
}

func (c *fakeCard) connect() (token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if hold := c.hold; hold != nil {
		c.mu.Unlock()
		<-hold
		c.mu.Lock()
	}
	if c.foreign || c.open != nil {
		return nil, &pcscError{pcscSharingViolation, errors.New("sharing violation")}
	}
	if c.refuses != nil {
		return nil, c.refuses
	}
	if c.noPIV {
		return nil, status(statusNotFound)
	}
	if c.breaks > 0 {
		c.breaks--
		return nil, &pcscError{pcscNotTransacted, errors.New("not transacted")}
	}
	c.log = append(c.log, "open")
	c.open = &fakeToken{c}
	return c.open, nil
}

// fakeToken is the connection to a card. A pointer to it is that connection.
type fakeToken struct{ card *fakeCard }

func status(sw uint16) error { return &statusError{sw, fmt.Errorf("status %04x", sw)} }

// command runs fn as the card, unless it is not there any more.
func (t *fakeToken) command(name string, fn func(c *fakeCard) error) error {
	c := t.card
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inUse {
		panic("two commands at once")
	}
	if c.open != t {
		return &pcscError{pcscCardRemoved, errors.New("card removed")}
	}
	c.failAt--
	fails := c.failAt == 0
	if fails && c.notSent {
		c.open = nil
		return c.failure
	}
	c.inUse = true
	defer func() { c.inUse = false }()
	c.log = append(c.log, name)
	if fails && statusOf(c.failure) != 0 {
		return c.failure
	}
	err := fn(c)
	c.fresh = name == "verify" && err == nil
	if fails {
		c.open = nil
		return c.failure
	}
	return err
}

func (t *fakeToken) version() Version { return t.card.firmware }

func (t *fakeToken) serial() (n uint32, err error) {
	err = t.command("serial", func(c *fakeCard) error {
		n = c.number
		if !c.firmware.hasSerial() {
			c.verified = false
		}
		return nil
	})
	return n, err
}

func (t *fakeToken) formFactor() (FormFactor, error) {
	return FormFactor(2), t.command("form", func(c *fakeCard) error {
		c.verified = false
		return nil
	})
}

func (t *fakeToken) keyInfo(slot Slot) (info slotInfo, err error) {
	err = t.command("info", func(c *fakeCard) error {
		k, ok := c.keys[slot]
		switch {
		case !c.firmware.hasMetadata():
			return status(statusUnknownINS)
		case !ok:
			return status(statusNoReference)
		}
		info = slotInfo{k.private.Public(), k.pin, k.touch}
		return nil
	})
	return info, err
}

func (t *fakeToken) attest(slot Slot) (cert *x509.Certificate, err error) {
	err = t.command("attest", func(c *fakeCard) error {
		k, ok := c.keys[slot]
		if !ok || k.imported {
			return status(statusIncorrectData)
		}
		cert = certificateWith(subjectPrefix + slot.String())
		cert.PublicKey = k.private.Public()
		return nil
	})
	return cert, err
}

func (t *fakeToken) certificate(Slot) (*x509.Certificate, error) {
	return nil, t.command("certificate", func(*fakeCard) error { return status(statusNotFound) })
}

func (t *fakeToken) pinTries() (n int, verified bool, err error) {
	err = t.command("tries", func(c *fakeCard) error {
		verified = c.verified
		if c.firmware.forgetsPINWhenAsked() {
			c.verified = false
		}
		if !verified {
			n = min(c.tries, maxTold)
		}
		return nil
	})
	return n, verified, err
}

func (t *fakeToken) factoryPIN() (factory bool, err error) {
	err = t.command("factory", func(c *fakeCard) error {
		if !c.firmware.hasMetadata() {
			return status(statusUnknownINS)
		}
		factory = c.pin == "123456"
		return nil
	})
	return factory, err
}

func (t *fakeToken) verifyPIN(pin string) error {
	return t.command("verify", func(c *fakeCard) error { return c.verify(pin) })
}

func (c *fakeCard) verify(pin string) error {
	c.verified = false
	switch {
	case c.tries == 0:
		return status(statusBlocked)
	case pin != c.pin:
		c.tries--
		return status(0x63c0 | uint16(min(c.tries, maxTold)))
	}
	c.verified, c.tries = true, c.most
	return nil
}

func (t *fakeToken) managementKey(pin string) (key []byte, err error) {
	err = t.command("stored", func(c *fakeCard) error {
		if err := c.verify(pin); err != nil {
			return err
		}
		key = c.stored
		return nil
	})
	return key, err
}

func (t *fakeToken) generate(managementKey []byte, slot Slot, spec KeySpec) (public crypto.PublicKey, err error) {
	err = t.command("generate", func(c *fakeCard) error {
		if string(managementKey) != c.managementKey {
			return status(statusNotSatisfied)
		}
		if c.managementTouches == TouchPolicyAlways {
			if err := c.awaitTouch(t); err != nil {
				return because(ErrManagementKey, err) // as go-piv's words are taken
			}
		}
		c.wait(c.slowGeneration)
		if c.open != t {
			return &pcscError{pcscNotTransacted, errors.New("not transacted")}
		}
		c.with(slot, spec.PINPolicy, spec.TouchPolicy)
		public = c.keys[slot].private.Public()
		return nil
	})
	return public, err
}

func (t *fakeToken) managementTouch() (touch TouchPolicy, err error) {
	err = t.command("touch?", func(c *fakeCard) error {
		if !c.firmware.hasMetadata() {
			return status(statusUnknownINS)
		}
		touch = c.managementTouches
		return nil
	})
	return touch, err
}

func (t *fakeToken) store(managementKey []byte, slot Slot, der []byte) error {
	return t.command("store", func(c *fakeCard) error {
		cert, err := x509.ParseCertificate(der)
		if string(managementKey) != c.managementKey || err != nil || !samePublicKey(c.keys[slot].private.Public(), cert.PublicKey) {
			return status(statusIncorrectData)
		}
		return nil
	})
}

func (t *fakeToken) sign(slot Slot, public crypto.PublicKey, digest []byte, _ crypto.SignerOpts) (signature []byte, err error) {
	err = t.command("sign", func(c *fakeCard) error {
		k, ok := c.keys[slot]
		ecKey, isEC := public.(*ecdsa.PublicKey)
		switch {
		case !ok || !isEC || ecKey.Curve != elliptic.P256():
			return status(statusIncorrectData)
		case k.pin != PINPolicyNever && !c.verified, k.pin == PINPolicyAlways && !c.fresh:
			return status(statusNotSatisfied)
		}
		if k.touch != TouchPolicyNever {
			if err := c.awaitTouch(t); err != nil {
				return err
			}
		}
		c.signed = bytes.Clone(digest)
		signature, err = k.private.Sign(rand.Reader, digest, crypto.SHA256)
		if c.lax {
			var ints struct{ R, S asn1.RawValue }
			if _, err := asn1.Unmarshal(signature, &ints); err != nil {
				return err
			}
			r := append([]byte{2, byte(len(ints.R.Bytes) + 1), 0}, ints.R.Bytes...)
			s := append([]byte{2, byte(len(ints.S.Bytes) + 1), 0}, ints.S.Bytes...)
			signature = slices.Concat([]byte{0x30, byte(len(r) + len(s))}, r, s)
		}
		return err
	})
	return signature, err
}

// awaitTouch is called with the lock held, and lets go of it to wait.
func (c *fakeCard) awaitTouch(t *fakeToken) error {
	after := c.touchAfter
	if c.noTouch {
		after = fakeTouchTimeout
	}
	c.wait(after)
	switch {
	case c.open != t:
		return &pcscError{pcscNotTransacted, errors.New("not transacted")}
	case c.noTouch:
		return status(statusNotSatisfied)
	}
	return nil
}

// wait lets time pass, until the card is pulled out.
func (c *fakeCard) wait(d time.Duration) {
	gone := c.gone
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-time.After(d):
	case <-gone:
	}
}

func (t *fakeToken) close() error {
	c := t.card
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inUse {
		panic("closed in the middle of a command")
	}
	if c.open == t {
		c.open = nil
	}
	return nil
}

// fakePrompt is a person.
type fakePrompt struct {
	mu   sync.Mutex
	pins []string // one after the other; the last one again and again
	wait time.Duration
	err  error

	asked   []PINRequest
	touches []TouchRequest
	shown   time.Time
	done    int
}

func (p *fakePrompt) PIN(_ context.Context, r PINRequest) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r)
	if p.wait > 0 {
		p.mu.Unlock()
		time.Sleep(p.wait) // with no regard to ctx
		p.mu.Lock()
	}
	pin := p.pins[0]
	if len(p.pins) > 1 {
		p.pins = p.pins[1:]
	}
	return pin, p.err
}

func (p *fakePrompt) Touch(_ context.Context, r TouchRequest) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.touches = append(p.touches, r)
	p.shown = time.Now()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.done++
	}
}

// count returns how often the PIN and a touch were asked for, and how many of the
// touches were over again.
func (p *fakePrompt) count() (pins, touches, done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked), len(p.touches), p.done
}

// bold is a person who agrees to spend the last try.
type bold struct {
	*fakePrompt
	yes   bool
	asked int
}

func (b *bold) SpendLastTry(context.Context, PINRequest) (bool, error) {
	b.asked++
	return b.yes, nil
}

func person(pins ...string) *fakePrompt { return &fakePrompt{pins: append(pins, "123456")} }

const fakeReader = "Yubico YubiKey OTP+FIDO+CCID 00 00"

// fakeSystem has cards in readers 00, 01 and so on.
func fakeSystem(cards ...*fakeCard) (*system, *fakePCSC) {
	p := &fakePCSC{cards: make(map[string]*fakeCard)}
	for i, c := range cards {
		p.cards[fmt.Sprintf("Yubico YubiKey OTP+FIDO+CCID %02d 00", i)] = c
	}
	return newSystem(p), p
}

func mustOpen(t *testing.T, s *system, o Options) *Key {
	t.Helper()
	k, err := s.open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var fakeDigest = sha256.Sum256([]byte("proof"))

// trySign signs, and checks the signature if there is one.
func trySign(ctx context.Context, k *Key) error {
	signature, err := k.SignContext(ctx, fakeDigest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), fakeDigest[:], signature) {
		return errors.New("the signature does not verify")
	}
	return nil
}

func mustSign(t *testing.T, k *Key) {
	t.Helper()
	if err := trySign(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

// wantError checks that err is all of these.
func wantError(t *testing.T, err error, targets ...error) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("%v\nis no %v", err, target)
		}
	}
}
