package pivtest_test

import (
	"testing"

	"github.com/ycauth/ycauth-go/piv/pivtest"
)

func TestStart(t *testing.T) {
	card := pivtest.Start(t, pivtest.Config{})
	h, err := card.Hold(t.Context(), pivtest.HoldOptions{Transaction: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Kill()
	answer, err := h.Transmit(t.Context(), []byte("\x00\xa4\x04\x00\x05\xa0\x00\x00\x03\x08"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%x %+v", answer, card.Log())
}
