package piv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

var sentinels = []error{
	ErrUnsupported, ErrNoService, ErrNoCard, ErrSeveralCards, ErrCardBusy, ErrCardRemoved, ErrNoKey, ErrSlotOccupied,
	ErrKeyMismatch, ErrPINRequired, ErrPINBlocked, ErrLastTry, ErrTouchTimeout, ErrManagementKey, ErrAttestation, ErrClosed,
}

func TestSentinels(t *testing.T) {
	implied := map[error]error{ErrNoService: ErrNoCard, ErrCardRemoved: ErrNoCard}
	for _, err := range sentinels {
		wrapped := &Error{Op: "sign", Serial: 7, Slot: SlotAuthentication, Err: becausef(err, "the card said %d", 42)}
		for _, other := range sentinels {
			want := other == err || other == implied[err] //nolint:errorlint // the very values
			if got := errors.Is(wrapped, other); got != want {
				t.Errorf("errors.Is(%q, %q) = %v", err, other, got)
			}
		}
		if remedy := Remedy(wrapped); remedy == "" || !strings.Contains(wrapped.Error(), remedy) {
			t.Errorf("Remedy(%q) = %q", wrapped, remedy)
		}
		if text := wrapped.Error(); !strings.HasPrefix(text, "piv: sign slot 9a of YubiKey 7: ") || !strings.HasSuffix(text, "(the card said 42)") {
			t.Errorf("Error() = %q", text)
		}
	}
}

func TestErrorText(t *testing.T) {
	cause := errors.New("no")
	for want, err := range map[string]error{
		"piv: list: no":                             &Error{Op: "list", Err: cause},
		"piv: open slot 9e of YubiKey 5: no":        &Error{Op: "open", Serial: 5, Slot: SlotCardAuthentication, Err: cause},
		"wrong PIN, 1 attempt left; retry with":     &WrongPINError{TriesLeft: 1},
		"wrong PIN, 0 attempts left; unblock":       &WrongPINError{},
		"was not sent to the card, 2 attempts left": &WrongPINError{TriesLeft: 2, NotSent: true},
	} {
		if got := err.Error(); !strings.Contains(got, want) {
			t.Errorf("Error() = %q, want %q", got, want)
		}
	}
	if got := Remedy(fmt.Errorf("x: %w", &WrongPINError{})); !strings.Contains(got, "PUK") {
		t.Errorf("Remedy = %q", got)
	}
	if got := Remedy(cause); got != "" {
		t.Errorf("Remedy = %q", got)
	}
	if !errors.Is(&WrongPINError{}, ErrPINBlocked) || errors.Is(&WrongPINError{TriesLeft: 1}, ErrPINBlocked) {
		t.Error("a wrong PIN blocks the card when no tries are left, and only then")
	}
	if got := because(ErrNoKey, nil); got != ErrNoKey { //nolint:errorlint // the very value
		t.Errorf("because = %v", got)
	}
}

func TestEndedTellsTheCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("shutting down")
	cancel(cause)
	wantError(t, ended(ctx), context.Canceled, cause)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if got := ended(ctx).Error(); got != context.Canceled.Error() {
		t.Errorf("ended = %q", got)
	}
}

func TestWrongPINStatus(t *testing.T) {
	for status, want := range map[uint16]struct {
		tries int
		wrong bool
	}{
		0x63c2: {2, true}, 0x63c0: {0, true}, 0x63cf: {15, true}, 0x6302: {2, true}, 0x6983: {0, true},
		0x6982: {0, false}, 0x9000: {0, false}, 0: {0, false}, 0x6a80: {0, false},
	} {
		if tries, wrong := wrongPIN(status); tries != want.tries || wrong != want.wrong {
			t.Errorf("wrongPIN(%04x) = %d, %v", status, tries, wrong)
		}
	}
}
