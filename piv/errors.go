package piv

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Errors about a card, a slot or a PIN. The functions of this package
// return them wrapped in an [*Error]; test with [errors.Is]. Their texts say what
// happened and what the user can do about it; [Remedy] returns only the latter.
var (
	// ErrUnsupported means that this build has no PC/SC (see "Without cgo" in the package
	// documentation), or that the card's firmware does not support the operation.
	ErrUnsupported error = &faultError{
		"not supported",
		"see the package documentation for the features of each build and firmware",
	}

	// ErrNoService means that the PC/SC service does not respond. It also matches
	// ErrNoCard, because without the service no card is visible.
	ErrNoService error = &faultError{
		"the PC/SC service is not running",
		"start it (Linux: systemctl start pcscd.socket; Windows: the SCardSvr service)",
	}

	// ErrAccessDenied means that the PC/SC service denies this user access. On Linux polkit
	// decides this, and many distributions allow only the user at the screen.
	ErrAccessDenied error = &faultError{
		"the PC/SC service denies access to the card",
		"for ssh sessions and services on Linux, allow the polkit actions org.debian.pcsc-lite.access_pcsc and " +
			"org.debian.pcsc-lite.access_card to the user, in a file in /etc/polkit-1/rules.d",
	}

	// ErrPCSC means that the PC/SC service or the card failed in a way that no other error
	// of this package covers. The error's text has the PC/SC return code.
	ErrPCSC error = &faultError{
		"the PC/SC service could not reach the card",
		"unplug the YubiKey, plug it in again and retry; if that does not help, restart the PC/SC service",
	}

	// ErrNoCard means that the requested card is in no reader.
	ErrNoCard error = &faultError{
		"no such YubiKey is plugged in",
		"plug it in, or correct the serial number",
	}

	// ErrSeveralCards means that no serial number was given and there is more than one card.
	ErrSeveralCards error = &faultError{
		"several YubiKeys are plugged in",
		"select one by its serial number",
	}

	// ErrCardBusy means that another program used the card, exclusively or in a transaction,
	// for longer than ctx or [Options].BusyTimeout allows to wait.
	ErrCardBusy error = &faultError{
		"another program is using the card",
		"touch the YubiKey if it blinks for that program, or close the program: usually gpg's scdaemon (gpgconf --kill scdaemon; " +
			"with pcsc-shared in scdaemon.conf it shares the card), yubikey-agent, or Yubico Authenticator",
	}

	// ErrCardRemoved means that the card was removed or lost its
	// connection. The next use looks for it again, by its serial number.
	// It also matches ErrNoCard.
	ErrCardRemoved error = &faultError{
		"the YubiKey was removed",
		"plug it in again and retry",
	}

	// ErrNoKey means that the slot is empty.
	ErrNoKey error = &faultError{
		"the slot has no key",
		"generate one, or choose another slot",
	}

	// ErrSlotOccupied means that Generate found a key or a certificate in the slot. See
	// [KeySpec].Overwrite.
	ErrSlotOccupied error = &faultError{
		"the slot is in use",
		"choose another slot; overwriting destroys the existing key permanently",
	}

	// ErrKeyMismatch means that the key in the slot is not the requested one.
	ErrKeyMismatch error = &faultError{
		"the slot has a different key",
		"plug in the card that the key was generated on, or register the new key",
	}

	// ErrPINRequired means that the key needs a PIN, but [Options].Prompt is not set.
	ErrPINRequired error = &faultError{
		"a PIN is required",
		"use a program that can ask for it, in a terminal or window",
	}

	// ErrPINBlocked means that no PIN attempts are left.
	ErrPINBlocked error = &faultError{
		"the PIN is blocked",
		"unblock it with the PUK (ykman piv access unblock-pin)",
	}

	// ErrLastTry means that one PIN attempt is left, and its use was not confirmed; see
	// [LastTryPrompt].
	ErrLastTry error = &faultError{
		"one PIN attempt is left, and it was not used",
		"make sure that you know the PIN, then confirm the last attempt; or set a new PIN with the PUK (ykman piv access unblock-pin)",
	}

	// ErrTouchTimeout means that the card waited for a touch in vain, for about 15 s.
	ErrTouchTimeout error = &faultError{
		"the YubiKey was not touched in time",
		"retry, and touch it when it blinks",
	}

	// ErrManagementKey means that the card rejected the management key. See
	// [KeySpec].ManagementKey.
	ErrManagementKey error = &faultError{
		"the card rejected the management key",
		"enter the right one, or store it on the card, protected by the PIN (ykman piv access change-management-key --protect)",
	}

	// ErrAttestation means that the card's statement about the key is missing, does not lead
	// to a trusted root, or contradicts the card itself.
	ErrAttestation error = &faultError{
		"the key is not attested",
		"only keys generated on a YubiKey (firmware 4.3 or newer) are; to accept another manufacturer, trust its root certificate",
	}

	// ErrRejected means that the card responded with a status word that no other error of
	// this package covers. The error's text has it.
	ErrRejected error = &faultError{
		"the card rejected the command",
		"look up its status word in Yubico's documentation of PIV; if another program changed the slot, open the key again",
	}

	// ErrClosed means that the [Key] was closed.
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

// Remedy returns advice for the user about err, or "" if this package has none.
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

// Error describes a failed operation on a card. It contains no secret.
type Error struct {
	// Op is the operation: "open", "sign", "generate", "attest" or "list".
	Op string

	// Serial is the card's serial number; 0 if not known yet.
	Serial uint32

	// Slot is the slot concerned, or 0.
	Slot Slot

	// Err is the reason: one of this package's Err values or a [*WrongPINError],
	// possibly with the card's own error, ctx's error, or the error of
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

// WrongPINError means that the PIN is wrong. With no attempts left it also
// matches [ErrPINBlocked]. Nothing was signed; another call asks for the PIN again.
type WrongPINError struct {
	// TriesLeft is how many attempts the card still allows, by its own count.
	TriesLeft int

	// NotSent is set if this package did not send the PIN, so that no attempt was
	// used, because it was not 6 to 8 bytes long or the card had already rejected it.
	NotSent bool
}

func (e *WrongPINError) Error() string {
	what := "wrong PIN"
	if e.NotSent {
		what = "the PIN cannot be right and was not sent to the card"
	}
	return fmt.Sprintf("%s, %s left; %s", what, plural(e.TriesLeft, "attempt", "attempts"), e.remedy())
}

func (e *WrongPINError) remedy() string {
	switch {
	case e.TriesLeft == 0:
		return ErrPINBlocked.(*faultError).remedy //nolint:errorlint // the sentinel itself, not a wrapped error
	case e.NotSent:
		return "enter the card's PIN, 6 to 8 characters"
	default:
		return "retry with the right PIN"
	}
}

// Is matches [ErrPINBlocked] if no attempts are left.
func (e *WrongPINError) Is(target error) bool {
	return target == ErrPINBlocked && e.TriesLeft == 0
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// because adds the cause in detail.
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
