// Package pivtest is a virtual YubiKey for tests: a smart card in Go that sits in a reader of the real PC/SC daemon, so that
// libpcsclite, go-piv/piv-go, yubico-piv-tool and OpenSC talk to it unchanged.
//
// The card is written from NIST SP 800-73-4 ("Interfaces for Personal Identity Verification", part 2) and from Yubico's
// documents "Yubico extensions to PIV" and "PIV attestation". What those leave open follows what firmware 5 answers.
//
// # A card in a test
//
//	card := pivtest.Start(t, pivtest.Config{Firmware: pivtest.Firmware57})
//	// card.Reader() names the PC/SC reader that holds it.
//
// [Start] runs pcscd with two virtual readers if none runs, and ends it with the test. There is one pcscd per machine, so
// Start waits for the tests of other packages that use it (a file lock), and within a process for other tests that hold a
// card; one test and its subtests may hold two cards.
//
// # A card without a reader
//
//	card, err := pivtest.New(pivtest.Config{})
//	answer, err := card.Transmit(ctx, apdu)
//
// The card itself and its transport are pure Go without cgo. It measures time with package time, so that a touch that never
// comes takes no time inside a testing/synctest bubble.
//
// # What is not like hardware
//
// The reader stays when the card is pulled out, as if the YubiKey were a card indeed; a pulled YubiKey takes its reader with it.
// A command that is cut off fails with SCARD_E_NOT_TRANSACTED (0x80100016), later ones with SCARD_W_REMOVED_CARD (0x80100069).
// pcscd notices what happens to the card up to 0.4 s later, and takes its power 0.4 to 0.8 s after the last program has closed
// it: the PIN is forgotten then. With real readers that takes some seconds.
//
// # Knobs
//
// Config says what the card is: firmware, serial, form factor, PIN, attestation CA. The methods of [Card] change what happens
// to it later: [Card.SetTouch], [Card.Remove] and [Card.Insert], [Card.RemoveDuring], [Card.SetPINTries], [Card.Hold].
// [Card.Log] lists the commands that reached the card, without their data.
package pivtest
