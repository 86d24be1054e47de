package piv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestManagementKeyDoesNotPrint logs a whole KeySpec, as programs do.
func TestManagementKeyDoesNotPrint(t *testing.T) {
	spec := KeySpec{ManagementKey: []byte("management key, 24 bytes")}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o"} {
		fmt.Fprintf(&out, verb+"\n", spec)
		fmt.Fprintf(&out, verb+"\n", &spec)
		fmt.Fprintf(&out, verb+"\n", spec.ManagementKey)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("text", "spec", spec, "key", spec.ManagementKey)
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "spec", spec, "key", spec.ManagementKey)
	if err := json.NewEncoder(&out).Encode(spec); err != nil {
		t.Fatal(err)
	}
	text := strings.ToLower(out.String())
	for _, leak := range []string{"management key,", "6d616e61", "109 97 110", "0x6d, 0x61", "155 141", "bwfuywdl"} { // the last is base64
		if strings.Contains(text, leak) {
			t.Errorf("%q is in\n%s", leak, text)
		}
	}
	if n := strings.Count(text, "redacted"); n < 27 {
		t.Errorf("%d marks in\n%s", n, text)
	}
	if got := fmt.Sprint(KeySpec{}.ManagementKey); got != "" {
		t.Errorf("no key prints as %q", got)
	}
}
