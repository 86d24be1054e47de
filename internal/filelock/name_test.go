package filelock

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{
		"default", "work", "a", "0", "user@example.com", "a_b-c.d", "console", "com", "com10", "lpt", strings.Repeat("a", 64),
	} {
		if reason := CheckName(name); reason != "" {
			t.Errorf("%q is refused: it %s", name, reason)
		}
	}
	for _, name := range []string{
		"", ".", "..", ".hidden", "-flag", "Work", "a/b", `a\b`, "../a", "a b", "a:b", "ä", "a\x00", "a\n", "*", "~",
		"con", "nul.x", "aux", "prn", "com1", "lpt9.tar.gz", "com0", strings.Repeat("a", 65), "ſ", "a\xff",
	} {
		if CheckName(name) == "" {
			t.Errorf("%q is accepted", name)
		}
	}
	for name, want := range map[string]string{"Work": "upper case", "a\xff": "characters other than", "ſ": "characters other than"} {
		if reason := CheckName(name); !strings.Contains(reason, want) {
			t.Errorf("%q %s, want %q", name, reason, want)
		}
	}
}
