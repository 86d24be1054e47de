package pivtest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a card has when it leaves the factory and after a reset.
const (
	DefaultPIN   = "123456"
	DefaultPUK   = "12345678"
	DefaultTries = 3 // of PIN and of PUK, each
)

// DefaultManagementKey returns the management key of a new card. Its algorithm is triple DES, from firmware 5.7 on AES-192.
func DefaultManagementKey() []byte {
	return []byte("\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08")
}

// DefaultAddr is where the first virtual reader of [Start] and [RunReaders] listens. The second reader is one port higher. It is not
// the address in the configuration of Debian's vsmartcard-vpcd, 127.0.0.1:35963: Linux gives that port to outgoing connections of other
// programs, and the reader then cannot have it.
const DefaultAddr = "127.0.0.1:27771"

// TouchFunc is the finger. The card calls it when it starts to blink, at most once at a time; ctx ends when the card stops
// waiting: the touch time-out has passed or the card was removed. It returns true when the sensor was touched, and must not
// outlive ctx. After false the card goes on blinking until its time-out.
//
// It may call the methods of the card that do not wait for it: Remove, but not Insert or Close.
type TouchFunc func(ctx context.Context) bool

// TouchAfter returns a finger that touches the sensor after d.
func TouchAfter(d time.Duration) TouchFunc {
	return func(ctx context.Context) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// NoTouch is the finger that never comes: the card answers 6982 after its touch time-out.
func NoTouch(ctx context.Context) bool {
	<-ctx.Done()
	return false
}

// Config describes a card. The zero value is a new YubiKey with firmware 5.7 that somebody touches as soon as it blinks.
type Config struct {
	// Firmware decides what the card can do. Optional; Firmware57 by default.
	Firmware Firmware
	// Serial is the serial number. Optional; 10000001 by default. Two cards in a test want two serial numbers.
	Serial uint32
	// FormFactor is what the attestation says. Optional; USBAKeychain by default.
	FormFactor FormFactor

	// PIN and PUK are 6 to 8 bytes. Optional; DefaultPIN and DefaultPUK. A reset of the card brings the defaults back.
	PIN, PUK string
	// PINTries and PUKTries are how often in a row each may be wrong, at most 255. Optional; 3 by default.
	PINTries, PUKTries int
	// ManagementKey is the management key, ManagementAlgorithm its algorithm. Optional; DefaultManagementKey with the
	// algorithm the firmware has at the start. A key of 16 or 32 bytes wants its algorithm named.
	ManagementKey       []byte
	ManagementAlgorithm Algorithm
	// ManagementTouch says when the management key needs a touch. Optional; TouchNever by default.
	ManagementTouch TouchPolicy

	// Touch is called when the card waits for a touch. Optional; TouchAfter(0) by default.
	Touch TouchFunc
	// TouchTimeout is how long the card waits for a touch before it answers 6982. Optional; 15 s by default.
	TouchTimeout time.Duration
	// TouchCache is how long a touch is good for keys of policy TouchCached. Optional; 15 s by default.
	TouchCache time.Duration

	// Observe is called after every command with what the log says of it. Optional. It must not call the card.
	Observe func(Exchange)

	// CA is the maker who signs the attestation certificate in slot f9. Optional; a CA of the process by default, with
	// the number of intermediates that Yubico used for the firmware.
	CA *CA
	// AttestationAlgorithm is that of the key in slot f9: RSA2048, P256 or P384. Optional; RSA2048 by default, as on
	// real cards.
	AttestationAlgorithm Algorithm

	// Addr is the vpcd reader the card is put into. Optional; DefaultAddr by default. [Start] chooses it by itself.
	Addr string
}

// withDefaults fills in the optional fields and finds every mistake.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.Firmware == (Firmware{}) {
		cfg.Firmware = Firmware57
	}
	setDefault(&cfg.Serial, 10000001)
	setDefault(&cfg.FormFactor, USBAKeychain)
	setDefault(&cfg.PIN, DefaultPIN)
	setDefault(&cfg.PUK, DefaultPUK)
	setDefault(&cfg.PINTries, DefaultTries)
	setDefault(&cfg.PUKTries, DefaultTries)
	setDefault(&cfg.ManagementAlgorithm, cfg.Firmware.defaultManagementAlgorithm())
	setDefault(&cfg.ManagementTouch, TouchNever)
	setDefault(&cfg.TouchTimeout, 15*time.Second)
	setDefault(&cfg.TouchCache, 15*time.Second)
	setDefault(&cfg.AttestationAlgorithm, RSA2048)
	setDefault(&cfg.Addr, DefaultAddr)
	if cfg.ManagementKey == nil {
		cfg.ManagementKey = DefaultManagementKey()
	}
	if cfg.Touch == nil {
		cfg.Touch = TouchAfter(0)
	}
	if err := cfg.check(); err != nil {
		return Config{}, err
	}
	if cfg.CA == nil {
		ca, err := DefaultCA(cfg.Firmware)
		if err != nil {
			return Config{}, err
		}
		cfg.CA = ca
	}
	return cfg, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (cfg Config) check() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf("pivtest: "+format, args...)) }
	if !cfg.Firmware.AtLeast(4, 3, 0) {
		refuse("firmware %v is older than 4.3.0, the first with attestation", cfg.Firmware)
	}
	if _, ok := padReference([]byte(cfg.PIN)); !ok {
		refuse("PIN is not 6 to 8 bytes")
	}
	if _, ok := padReference([]byte(cfg.PUK)); !ok {
		refuse("PUK is not 6 to 8 bytes")
	}
	if cfg.PINTries < 1 || cfg.PINTries > 255 || cfg.PUKTries < 1 || cfg.PUKTries > 255 {
		refuse("PINTries and PUKTries are 1 to 255")
	}
	if !cfg.Firmware.supportsManagement(cfg.ManagementAlgorithm) {
		refuse("firmware %v has no %v management keys", cfg.Firmware, cfg.ManagementAlgorithm)
	} else if len(cfg.ManagementKey) != cfg.ManagementAlgorithm.keyLen() {
		refuse("a management key of %v is %d bytes", cfg.ManagementAlgorithm, cfg.ManagementAlgorithm.keyLen())
	}
	switch cfg.AttestationAlgorithm {
	case RSA2048, P256, P384:
	default:
		refuse("an attestation key is RSA2048, P256 or P384")
	}
	return errors.Join(errs...)
}
