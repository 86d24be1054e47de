// Package piv makes the key in a PIV slot of a YubiKey a [crypto.Signer]: a key
// that signs but cannot be copied. It also proves that to others, by attestation.
//
//	key, err := piv.Open(ctx, piv.Options{Serial: 12345678, Prompt: terminal})
//	…
//	prover, err := dpop.New(key)
//
// [Generate] makes the key once, [Key.Reference] says what to store in order to
// open the same key again, and [Key.Attestation] is the card's own statement that
// the key was born there.
//
// # What to install
//
// The package talks to the card through PC/SC by way of go-piv, which uses cgo on
// every system but Windows.
//
//   - Debian, Ubuntu: apt-get install libpcsclite-dev pkg-config gcc to build,
//     pcscd to run.
//   - Fedora: dnf install pcsc-lite-devel pkgconf gcc to build, pcsc-lite
//     pcsc-lite-ccid to run (systemctl enable --now pcscd.socket).
//   - Alpine: apk add pcsc-lite-dev pkgconf gcc musl-dev to build, pcsc-lite ccid
//     to run (rc-service pcscd start).
//   - macOS: the command line tools of Xcode to build; nothing to run.
//   - Windows: nothing; the smart card service starts by itself, and cgo is not
//     needed.
//
// # PIN and touch
//
// The policies are chosen when the key is generated and never change. The
// [Prompt] in [Options] is asked for the PIN when the card wants it, and told when
// the card has been waiting for a touch for a moment. A PIN lives from the
// prompt's answer to the one command that verifies it; it is neither kept nor
// logged. With [PINPolicyOnce] the card itself remembers it, until it loses power
// (a few seconds after the last program let go of it) or another of its
// applications is used; whoever wants to enter it less often has to keep it in
// the Prompt.
//
// A wrong PIN is a [*WrongPINError] and is not asked for again in the same
// signature. The same wrong PIN is not sent to the card a second time, and the
// last try before the card blocks is spent only after [LastTryPrompt] agreed.
//
// # Sharing the card
//
// One connection to a card keeps out every other program, so there is one for all
// keys of the process, and it is as short as possible: it is opened for a
// signature and closed 300 ms after the last one, and while a PIN prompt waits for
// its answer. Within that time a signature is one command (two with
// [PINPolicyAlways]); after it, the card's identity and the key in the slot are
// compared first. A card that another program holds is tried again until ctx ends
// or [Options].BusyTimeout has passed, which is then an [ErrCardBusy].
//
// A program that signs without a pause keeps the card all the time.
//
// A card that was pulled out is an [ErrCardRemoved]; the same [Key] works again
// when it is back, in whatever port.
//
// A command that the card is at cannot be stopped. When ctx ends, the caller
// returns at once, and the card is free again when the command is through.
//
// Only cards in readers named like a YubiKey are opened. A card among them whose
// PIV application is switched off is an [ErrUnsupported], and go-piv (v2.6.0)
// keeps the connection to it until the process ends. So it does with a card that
// goes away in the very moment in which it is opened; that matters only in a
// reader that stays when the card goes, as contactless ones do, and the
// [ErrCardBusy] that follows says so.
//
// # Attestation
//
// [Key.Attestation] verifies the card's statement against Yubico's roots and
// compares it with the key, the card and the policies. [Attestation.Secure] says
// whether the key has what Yandex Cloud asks of a SECURE_KEY_DPOP key, and
// [Attestation.Certificates] is the chain to send along, where a server wants it.
// [VerifyAttestation] is the same for the receiving side, without a card.
//
// # Errors
//
// Every error about a card is an [*Error] that says which card and slot it was
// about and wraps one of the Err values of this package, a [*WrongPINError], the
// Prompt's error or ctx's. Their texts name the remedy; [Remedy] returns it alone.
//
// # Without cgo
//
// The package builds everywhere. Without cgo, on other systems than Windows,
// [Cards], [Open] and [Generate] return [ErrUnsupported]; [VerifyAttestation] and
// [Reference] work as ever.
package piv
