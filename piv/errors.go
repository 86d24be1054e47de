package piv

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// What can be wrong with a card, a slot or a PIN. The functions of this package
// return them wrapped in an [*Error]; test with [errors.Is]. Their texts say what
// happened and what a person can do about it; [Remedy] gives the second half alone.
var (
	// ErrUnsupported: this build has no PC/SC (see "Without cgo" in the package
	// documentation), or the card's firmware cannot do what was asked.
	ErrUnsupported error = &faultError{
		"not supported",
		"see the package documentation for what each build and each firmware can do",
	}

	// ErrNoService: the PC/SC service does not answer. It is also an ErrNoCard,
	// because without the service no card can be seen.
	ErrNoService error = &faultError{
		"the PC/SC service is not running",
		"start it (Linux: systemctl start pcscd.socket; Windows: the SCardSvr service)",
	}

	// ErrAccessDenied: the PC/SC service does not let this user in. On Linux polkit
	// decides that, and many distributions let in only the person at the screen.
	ErrAccessDenied error = &faultError{
		"the PC/SC service denies access to the card",
		"for ssh sessions and services on Linux, allow the polkit actions org.debian.pcsc-lite.access_pcsc and " +
			"org.debian.pcsc-lite.access_card to the user, in a file in /etc/polkit-1/rules.d",
	}

	// ErrPCSC: the PC/SC service or the card failed in a way that has no error of
	// its own here. The error's text has the PC/SC return code.
	ErrPCSC error = &faultError{
		"the PC/SC service could not reach the card",
		"pull the YubiKey out, plug it in again and repeat; if that does not help, restart the PC/SC service",
	}

	// ErrNoCard: no reader holds the card that was asked for.
	ErrNoCard error = &faultError{
		"no such YubiKey is plugged in",
		"plug it in, or correct the serial number",
	}

	// ErrSeveralCards: no serial number was given and there is more than one card.
	ErrSeveralCards error = &faultError{
		"several YubiKeys are plugged in",
		"say which one by its serial number",
	}

	// ErrCardBusy: another program holds the card, exclusively or in a transaction,
	// for longer than ctx or [Options].BusyTimeout allowed to wait.
	ErrCardBusy error = &faultError{
		"another program holds the card",
		"touch the YubiKey if it blinks for that program, or close it: usually gpg's scdaemon (gpgconf --kill scdaemon; " +
			"with pcsc-shared in scdaemon.conf it shares the card), yubikey-agent, or Yubico Authenticator",
	}

	// ErrCardRemoved: the card was there, and then was pulled out or lost its
	// connection. It is looked for again, by its serial number, at the next use.
	// It is also an ErrNoCard.
	ErrCardRemoved error = &faultError{
		"the YubiKey was removed",
		"plug it in again and repeat",
	}

	// ErrNoKey: the slot is empty.
	ErrNoKey error = &faultError{
		"the slot holds no key",
		"generate one, or choose another slot",
	}

	// ErrSlotOccupied: Generate found a key or a certificate in the slot. See
	// [KeySpec].Overwrite.
	ErrSlotOccupied error = &faultError{
		"the slot is in use",
		"choose another slot; to overwrite it destroys the key that is there, for ever",
	}

	// ErrKeyMismatch: the slot holds another key than the one asked for.
	ErrKeyMismatch error = &faultError{
		"the slot holds another key",
		"plug in the card that the key was made on, or enrol the new key",
	}

	// ErrPINRequired: the key needs a PIN and there is nobody to ask for it, as
	// [Options].Prompt is not set.
	ErrPINRequired error = &faultError{
		"a PIN is required",
		"use a program that can ask for it, and a terminal or window that it can ask in",
	}

	// ErrPINBlocked: no tries are left.
	ErrPINBlocked error = &faultError{
		"the PIN is blocked",
		"unblock it with the PUK (ykman piv access unblock-pin)",
	}

	// ErrLastTry: one try is left, and nobody agreed to spend it; see [LastTryPrompt].
	ErrLastTry error = &faultError{
		"one PIN try is left and it was not spent",
		"be sure of the PIN, then agree to the last try; or set a new PIN with the PUK (ykman piv access unblock-pin)",
	}

	// ErrTouchTimeout: the card waited for a touch and gave up, after about 15 s.
	ErrTouchTimeout error = &faultError{
		"nobody touched the YubiKey in time",
		"repeat, and touch it when it blinks",
	}

	// ErrManagementKey: the card did not accept the management key. See
	// [KeySpec].ManagementKey.
	ErrManagementKey error = &faultError{
		"the card refused the management key",
		"enter the right one, or have it stored on the card under the PIN (ykman piv access change-management-key --protect)",
	}

	// ErrAttestation: the card's statement about the key is missing, does not lead
	// to a trusted root, or contradicts what the card itself says.
	ErrAttestation error = &faultError{
		"the key is not attested",
		"only keys generated on a YubiKey (firmware 4.3 or newer) are; to believe another maker, trust its root certificate",
	}

	// ErrRejected: the card answered a command with a status word that has no error
	// of its own here. The error's text has it.
	ErrRejected error = &faultError{
		"the card rejected the command",
		"look up its status word in Yubico's documentation of PIV; if the slot was changed by another program, open the key again",
	}

	// ErrClosed: the [Key] was closed.
	ErrClosed error = &faultError{"the key is closed", "open it again"}
)

// faultError is a cause with its remedy.
type faultError struct{ cause, remedy string }

func (f *faultError) Error() string { return f.cause + "; " + f.remedy }

// Is makes a removed card, and a card that is not seen for want of the service,
// a missing one.
func (f *faultError) Is(target error) bool {
	return target == ErrNoCard && (error(f) == ErrNoService || error(f) == ErrCardRemoved)
}

// Remedy returns what a person can do about err, or "" where this package has
// no advice.
func Remedy(err error) string {
	var pin *WrongPINError
	if errors.As(err, &pin) {
		return pin.remedy()
	}
	var f *faultError
	if errors.As(err, &f) {
		return f.remedy
	}
	return ""
}

// Error is a failed operation on a card. It holds no secret.
type Error struct {
	// Op is what was tried: "open", "sign", "generate", "attest" or "list".
	Op string

	// Serial is the card's serial number; 0 where none is known yet.
	Serial uint32

	// Slot is the slot concerned; 0 where none is.
	Slot Slot

	// Err is the reason: one of this package's Err values or a [*WrongPINError],
	// perhaps with the card's own words behind it, ctx's error, or the error of
	// the [Prompt].
	Err error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("piv: ")
	b.WriteString(e.Op)
	if e.Slot != 0 {
		fmt.Fprintf(&b, " slot %v", e.Slot)
	}
	if e.Serial != 0 {
		fmt.Fprintf(&b, " of YubiKey %d", e.Serial)
	}
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// WrongPINError says that a PIN was not the card's. With no tries left it is an
// [ErrPINBlocked] too. Nothing was signed; another call asks for the PIN anew.
type WrongPINError struct {
	// TriesLeft is how many tries the card still allows, by its own count.
	TriesLeft int

	// NotSent is set when this package kept the PIN back, so that no try was
	// spent: it was not 6 to 8 bytes long, or the card had already refused it.
	NotSent bool
}

func (e *WrongPINError) Error() string {
	what := "wrong PIN"
	if e.NotSent {
		what = "a PIN that cannot be right was not sent to the card"
	}
	return fmt.Sprintf("%s, %s left; %s", what, plural(e.TriesLeft, "try", "tries"), e.remedy())
}

func (e *WrongPINError) remedy() string {
	switch {
	case e.TriesLeft == 0:
		return ErrPINBlocked.(*faultError).remedy //nolint:errorlint // the sentinel itself, not a wrapped error
	case e.NotSent:
		return "enter the card's PIN, 6 to 8 characters"
	default:
		return "repeat with the right PIN"
	}
}

// Is makes a wrong PIN that was the last try an [ErrPINBlocked].
func (e *WrongPINError) Is(target error) bool {
	return target == ErrPINBlocked && e.TriesLeft == 0
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// because adds what exactly happened, in the words of whoever noticed it.
func because(kind, cause error) error {
	if cause == nil {
		return kind
	}
	return fmt.Errorf("%w (%w)", kind, cause)
}

// becausef is because with a cause made on the spot.
func becausef(kind error, format string, args ...any) error {
	return because(kind, fmt.Errorf(format, args...))
}

// ended is ctx's error, with its cause where that says more.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
