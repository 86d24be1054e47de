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
// The card is opened for a signature and closed 300 ms after the last one, and
// while a PIN prompt waits for its answer. In between nobody else can send it
// commands, so within that time a signature is one command (two with
// [PINPolicyAlways]); after it, the card's identity and the key in the slot are
// compared first. The connection is shared by all keys of the process, and with
// programs that merely keep the card open, such as gsd-smartcard, PKCS #11 modules
// and gpg's scdaemon with its option pcsc-shared. Such a program keeps the card under power too, so that a PIN with
// [PINPolicyOnce] stays verified for every program until it lets go.
//
// A card that another program holds exclusively, or in a transaction, is tried
// again until ctx ends or [Options].BusyTimeout has passed, which is then an
// [ErrCardBusy]. Most often that program waits for its own touch; a [BusyPrompt] is
// told. A program that signs without a pause lets go of the card every 2 s, for
// 500 ms, so that others get their turn.
//
// A card that was pulled out is an [ErrCardRemoved]; the same [Key] works again
// when it is back, in whatever port.
//
// An APDU in progress cannot be canceled. When ctx ends, the caller returns at
// once, and the card is free again when the command is through.
//
// Only cards in readers named like a YubiKey are opened. A card among them whose
// PIV application is switched off is an [ErrUnsupported].
//
// # go-piv
//
// go-piv (v2.5.0) speaks PIV over a connection that this package opens, because
// its own are exclusive and stay open when the first command fails. It has no
// function for that, so unexported fields of its YubiKey are set. A version in
// which they have changed is detected, and then opens the card by itself,
// exclusively, after this package has seen it answer.
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
