// Package piv implements [crypto.Signer] with the key in a PIV slot of a YubiKey, which
// cannot be copied. Attestation proves this to others.
//
//	key, err := piv.Open(ctx, piv.Options{Serial: 12345678, Prompt: terminal})
//	…
//	prover, err := dpop.New(key)
//
// [Generate] generates the key once, [Key.Reference] returns a reference to store, with
// which to open the same key again, and [Key.Attestation] is the card's own statement that
// the key was generated there.
//
// # Installation
//
// The package accesses the card through PC/SC with go-piv, which uses cgo on
// every system except Windows.
//
//   - Debian, Ubuntu: apt-get install libpcsclite-dev pkg-config gcc to build,
//     pcscd to run.
//   - Fedora: dnf install pcsc-lite-devel pkgconf gcc to build, pcsc-lite
//     pcsc-lite-ccid to run (systemctl enable --now pcscd.socket).
//   - Alpine: apk add pcsc-lite-dev pkgconf gcc musl-dev to build, pcsc-lite ccid
//     to run (rc-service pcscd start).
//   - macOS: the command line tools of Xcode to build; nothing to run.
//   - Windows: nothing; the smart card service starts automatically, and cgo is not
//     needed.
//
// # PIN and touch
//
// The policies are chosen when the key is generated and never change. The package
// asks the [Prompt] in [Options] for the PIN when the card requires it, and tells it when
// the card has been waiting for a touch for a moment. The PIN is used for one command
// that verifies it, and neither stored nor
// logged. With [PINPolicyOnce] the card itself remembers it, until it loses power
// (a few seconds after the last program releases it) or another of its
// applications is used. To ask the user less often, let your Prompt remember the PIN.
//
// A wrong PIN is a [*WrongPINError]; a signature asks for the PIN only once. The package
// does not send the same wrong PIN twice, and uses the last attempt before the card
// blocks only if the [LastTryPrompt] agrees.
//
// # Sharing the card
//
// The card is opened for a signature and closed 300 ms after the last one, and
// while a PIN prompt waits for the user. While it is open, no other program can send
// it commands, so a signature is one command (two with
// [PINPolicyAlways]). After it was closed, the card's identity and the key in the slot are
// compared first. All keys of the process share the connection, as do
// programs that merely keep the card open, such as gsd-smartcard, PKCS #11 modules
// and gpg's scdaemon with its option pcsc-shared. Such a program also keeps the card
// powered, so a PIN with [PINPolicyOnce] stays verified for every program until it
// releases the card.
//
// If another program uses the card exclusively, or in a transaction, the package retries
// until ctx is done or [Options].BusyTimeout has passed, and then returns
// [ErrCardBusy]. Usually that program is waiting for a touch; a [BusyPrompt] is
// notified. A program that signs without a pause releases the card every 2 s, for
// 500 ms, so that others get their turn.
//
// If the card is removed, the error is [ErrCardRemoved]. The same [Key] works again
// when the card is back, in any port.
//
// An APDU in progress cannot be canceled. When ctx is done, the caller returns at
// once, and the card is free again when the command has finished.
//
// Only cards in readers named like a YubiKey are opened. If the PIV application of such a
// card is disabled, the error is [ErrUnsupported].
//
// # go-piv
//
// go-piv (v2.5.0) implements PIV over a connection that this package opens, because
// its own connections are exclusive and stay open when the first command fails. It has no
// function for that, so this package sets unexported fields of its YubiKey. If a new
// version changes them, this is detected, and go-piv opens the card itself,
// exclusively, after this package has checked that the card responds.
//
// # Attestation
//
// [Key.Attestation] verifies the card's statement against Yubico's roots and
// compares it with the key, the card and the policies. [Attestation.Secure] reports
// whether the key meets Yandex Cloud's requirements for a SECURE_KEY_DPOP key, and
// [Attestation.Certificates] is the chain to send to a server that requires it.
// [VerifyAttestation] does the same on the receiving side, without a card.
//
// # Errors
//
// Every error about a card is an [*Error] that names the card and slot
// and wraps one of the Err values of this package, a [*WrongPINError], the
// Prompt's error or ctx's. Their texts include the remedy; [Remedy] returns only that.
//
// # Without cgo
//
// The package builds everywhere. Without cgo, on systems other than Windows,
// [Cards], [Open] and [Generate] return [ErrUnsupported]; [VerifyAttestation] and
// [Reference] still work.
package piv
