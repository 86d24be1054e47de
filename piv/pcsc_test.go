//go:build cgo && linux

package piv

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"

	gopiv "github.com/go-piv/piv-go/v2/piv"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// TestNumbersOfErrors checks against the real service that the numbers behind
// go-piv's errors are found, one of which it does not export.
func TestNumbersOfErrors(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	h, err := card.Hold(t.Context(), pcscd.HoldOptions{Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if yk, connectErr := (pcsc{}).connect(card.Reader()); connectErr == nil {
		yk.close()
	} else {
		err = connectErr
	}
	if got := pcscCode(err); got != pcscSharingViolation {
		t.Errorf("held card: code %08x, %v", got, err)
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	_, err = pcsc{}.connect("no such reader")
	if got := pcscCode(err); got != pcscUnknownReader {
		t.Errorf("no reader: code %08x, %v", got, err)
	}

	yk, err := pcsc{}.connect(card.Reader())
	if err != nil {
		t.Fatal(err)
	}
	defer yk.close()
	_, err = yk.keyInfo(SlotSignature)
	if got := statusOf(err); got != statusNoReference {
		t.Errorf("no key: status %04x, %v", got, err)
	}
	_, err = yk.attest(SlotSignature)
	if got := statusOf(err); got != statusIncorrectData {
		t.Errorf("nothing to attest: status %04x, %v", got, err)
	}
	_, err = yk.certificate(SlotSignature)
	if got := statusOf(err); got != statusNotFound {
		t.Errorf("no certificate: status %04x, %v", got, err)
	}
	if left, wrong := wrongPIN(statusOf(yk.verifyPIN("000000"))); left != 2 || !wrong {
		t.Errorf("wrong PIN: %d tries left, %v", left, wrong)
	}
	if n, verified, err := yk.pinTries(); n != 2 || verified || err != nil {
		t.Errorf("tries: %d, %v, %v", n, verified, err)
	}
	if err := yk.verifyPIN(virtual.DefaultPIN); err != nil {
		t.Fatal(err)
	}
	if n, verified, err := yk.pinTries(); n != 0 || !verified || err != nil {
		t.Errorf("tries with the PIN verified: %d, %v, %v", n, verified, err)
	}
	card.Remove()
	err = yk.verifyPIN(virtual.DefaultPIN)
	if pcscCode(err) == 0 || statusOf(err) != 0 {
		t.Errorf("card pulled out: code %08x, %v", pcscCode(err), err)
	}
	if _, verified, err := yk.pinTries(); verified || pcscCode(err) == 0 {
		t.Errorf("card pulled out: verified %v, %v", verified, err)
	}
}

// scErr has the name of go-piv's error, but is not it.
type scErr struct{ rc int64 } //nolint:errname // see above

func (*scErr) Error() string { return "not go-piv's" }

func TestErrorsWithoutNumbers(t *testing.T) {
	plain := errors.New("plain")
	for _, err := range []error{plain, fmt.Errorf("wrapped: %w", plain), &scErr{pcscSharingViolation}} {
		if got := numbered(err); !errors.Is(got, err) || pcscCode(got) != 0 || statusOf(got) != 0 {
			t.Errorf("numbered(%v): code %08x, status %04x", err, pcscCode(got), statusOf(got))
		}
	}
}

// TestAgreesWithGoPiv verifies the attestations of real cards both ways.
func TestAgreesWithGoPiv(t *testing.T) {
	five, four := realChain(t, "yubikey5.pem"), realChain(t, "yubikey4.pem")
	for _, chain := range [][]*x509.Certificate{
		five, four, {five[0], four[1]}, {four[0], five[1]}, {five[1], five[0]}, {five[1], five[1]},
	} {
		ours, err := VerifyAttestation(chain, Trust{})
		copied := *chain[1] // go-piv changes it
		theirs, theirErr := gopiv.Verify(&copied, chain[0])
		if err != nil && theirErr == nil && theirs.Slot != (gopiv.Slot{}) {
			t.Errorf("go-piv believes %+v, we say %v", theirs, err)
		}
		if err == nil && theirErr != nil {
			t.Errorf("we believe %+v, go-piv says %v", ours, theirErr)
		}
		if err == nil && (theirs.Serial != ours.Serial || int(theirs.PINPolicy) != int(ours.PINPolicy) || int(theirs.TouchPolicy) != int(ours.TouchPolicy)) {
			t.Errorf("go-piv reads %+v, we read %+v", theirs, ours)
		}
	}
}

// TestAdopt notices when go-piv does not take a connection any more, and then
// shows that its own still works.
func TestAdopt(t *testing.T) {
	if _, ok := adopt(1, Version{5, 7, 4}); !ok {
		t.Error("go-piv has changed: see adopt")
	}
	card := pcscd.Start(t, virtual.Config{})
	l, err := dialLink(card.Reader())
	if err != nil {
		t.Fatal(err)
	}
	y, err := openExclusively(card.Reader(), l)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := y.serial(); n != card.Serial() || err != nil {
		t.Errorf("serial: %d, %v", n, err)
	}
	if err := y.close(); err != nil {
		t.Error(err)
	}
}

// TestFormFactor asks a card for its shape in the middle of a PIV session, which
// ends with that.
func TestFormFactor(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{FormFactor: virtual.USBCNano})
	y, err := pcsc{}.connect(card.Reader())
	if err != nil {
		t.Fatal(err)
	}
	defer y.close()
	ask := func(t *testing.T, want FormFactor, status uint16) {
		t.Helper()
		if err := y.verifyPIN(virtual.DefaultPIN); err != nil {
			t.Fatal(err)
		}
		if f, err := y.formFactor(); f != want || statusOf(err) != status {
			t.Errorf("form factor %v, %v", f, err)
		}
	}
	ask(t, FormFactor(4), 0)
	if n, verified, err := y.pinTries(); n != 3 || verified || err != nil {
		t.Errorf("after that %d tries, verified %v, %v", n, verified, err)
	}
	card.FailNext(virtual.InsSelect, 1, virtual.NotFound)
	ask(t, 0, statusNotFound)
	if _, verified, err := y.pinTries(); !verified || err != nil {
		t.Errorf("without a management application verified %v, %v", verified, err)
	}
	card.FailNext(0x1d, 1, virtual.UnknownInstruction)
	ask(t, 0, statusUnknownINS)
	if n, verified, err := y.pinTries(); n != 3 || verified || err != nil {
		t.Errorf("without a configuration %d tries, verified %v, %v", n, verified, err)
	}
	card.Remove()
	if _, err := y.formFactor(); pcscCode(err) == 0 {
		t.Errorf("card pulled out: %v", err)
	}
}

var configs = []struct {
	config string
	want   FormFactor
	ok     bool
}{
	{"\x0f\x01\x02\x02\x3f\x02\x04\x00\x98\x96\x81\x04\x01\x03\x05\x00", FormFactor(3), true},
	{"\x03\x04\x01\x81", FormFactor(1) | FormFactorFIPS, true},
	{"\x04\x01\x02\x02\x3f", 0, true},
	{"\x00", 0, true},
	{"\x02\x04\x00", 0, true},
	{"\x04\x04\x02\x01\x01", 0, true},
	{"\x03\x04\x02\x01", 0, false},
	{"\x02\x04\x01\x01", 0, false},
	{"\x04\x04\x01\x01", 0, false},
	{"", 0, false},
}

func TestParseFormFactor(t *testing.T) {
	for _, test := range configs {
		if f, err := parseFormFactor([]byte(test.config)); f != test.want || (err == nil) != test.ok {
			t.Errorf("%x: %v, %v", test.config, f, err)
		}
	}
}

func FuzzParseFormFactor(f *testing.F) {
	for _, test := range configs {
		f.Add([]byte(test.config))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		if shape, err := parseFormFactor(config); shape != 0 && (err != nil || !bytes.Contains(config, []byte{4, 1, byte(shape)})) {
			t.Errorf("%x: %v, %v", config, shape, err)
		}
	})
}
