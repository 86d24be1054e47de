package piv

import (
	"testing"

	"github.com/ycauth/ycauth-go/dpop"
)

var _ dpop.PersonSigner = (*Key)(nil)

func TestNeedsPerson(t *testing.T) {
	for _, tt := range []struct {
		pin   PINPolicy
		touch TouchPolicy
		want  bool
	}{
		{PINPolicyNever, TouchPolicyNever, false},
		{PINPolicyOnce, TouchPolicyNever, true},
		{PINPolicyNever, TouchPolicyCached, true},
		{PINPolicyAlways, TouchPolicyAlways, true},
		{0, 0, true}, // not known
	} {
		k := &Key{info: slotInfo{pin: tt.pin, touch: tt.touch}}
		if got := k.NeedsPerson(); got != tt.want {
			t.Errorf("PIN policy %v, touch policy %v: %v", tt.pin, tt.touch, got)
		}
	}
}
