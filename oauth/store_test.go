package oauth_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
)

// A store in memory does not print what it keeps, alone or in a configuration.
func TestMemoryStoreDoesNotPrint(t *testing.T) {
	const secret = "rt1.hunter2"
	store := oauth.NewMemoryStore()
	err := store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		return oauth.Session{Provider: "x", ClientID: "c", RefreshToken: secret, Generation: 1}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	config := oauth.Config{Store: store}
	type private struct{ store oauth.Store }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d"} {
		for _, v := range []any{store, &store, config, &config, private{store}, []oauth.Store{store}} {
			fmt.Fprintf(&out, verb+"|", v)
		}
	}
	if got := fmt.Sprint(store); got != "oauth.MemoryStore" {
		t.Errorf("it prints as %q", got)
	}
	b, err := json.Marshal(store)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		before := out.Len()
		slog.New(h).Info("x", "store", store)
		if line := out.String()[before:]; !strings.Contains(line, "oauth.MemoryStore") {
			t.Errorf("slog does not name the store: %s", line)
		}
	}
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("% x", secret)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q came through in:\n%s", form, out.String())
		}
	}
}
