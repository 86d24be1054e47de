package piv

import "testing"

func TestParseSlot(t *testing.T) {
	for text, want := range map[string]Slot{
		"9a": SlotAuthentication, "9C": SlotSignature, "9d": SlotKeyManagement, "9e": SlotCardAuthentication,
		"82": SlotRetired1, "95": SlotRetired20, "8f": 0x8f,
	} {
		got, err := ParseSlot(text)
		if err != nil || got != want {
			t.Errorf("ParseSlot(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "9", "9b", "f9", "81", "96", "0x9a", "09a", "+9a", "9a ", "zz", "19a"} {
		if got, err := ParseSlot(text); err == nil {
			t.Errorf("ParseSlot(%q) = %v, want an error", text, got)
		}
	}
}

func TestSlotText(t *testing.T) {
	for s := range 256 {
		slot := Slot(s)
		text, err := slot.MarshalText()
		if (err == nil) != slot.valid() {
			t.Errorf("Slot(%#x).MarshalText() = %q, %v", s, text, err)
		}
		if err != nil {
			continue
		}
		var back Slot
		if err := back.UnmarshalText(text); err != nil || back != slot {
			t.Errorf("%q came back as %v, %v", text, back, err)
		}
	}
}
