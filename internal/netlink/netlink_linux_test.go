package netlink

import (
	"errors"
	"syscall"
	"testing"
)

func TestCall(t *testing.T) {
	request := make([]byte, syscall.SizeofIfAddrmsg)
	messages, err := Call(syscall.NETLINK_ROUTE, syscall.RTM_GETADDR, syscall.NLM_F_DUMP, request)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, m := range messages {
		found = found || m.Type == syscall.RTM_NEWADDR && HasAttribute(m.Data[syscall.SizeofIfAddrmsg:], syscall.IFA_LOCAL, []byte{127, 0, 0, 1})
	}
	if !found {
		t.Error("127.0.0.1 is not among the addresses")
	}
	var errno syscall.Errno
	if _, err := Call(syscall.NETLINK_ROUTE, 9999, 0, nil); !errors.As(err, &errno) {
		t.Errorf("a request that does not exist: %v", err)
	}
}

func FuzzHasAttribute(f *testing.F) {
	f.Add(Attribute(Attribute(nil, 1, []byte{1}), 2, []byte{127, 0, 0, 1}))
	f.Add([]byte{4, 0, 2, 0})
	f.Add([]byte{0, 0, 2, 0})
	f.Add([]byte{255, 255, 2, 0})
	f.Fuzz(func(_ *testing.T, attributes []byte) {
		HasAttribute(attributes, 2, []byte{127, 0, 0, 1})
	})
}

func TestHasAttribute(t *testing.T) {
	attributes := Attribute(Attribute(nil, 1, []byte{1}), 2, []byte{127, 0, 0, 1})
	if len(attributes) != 16 || !HasAttribute(attributes, 2, []byte{127, 0, 0, 1}) || HasAttribute(attributes, 1, []byte{127, 0, 0, 1}) {
		t.Errorf("%v", attributes)
	}
}
