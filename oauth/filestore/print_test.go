package filestore_test

import (
	"bytes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// No verb of fmt and no handler of slog shows the key that seals the sessions, which is
// in the first words of what AES makes of it, or a session, however the store is handed
// over.
func TestPrint(t *testing.T) {
	const n = 0x5a
	type nested struct{ V any }
	type opaque struct{ s oauth.Store } // fmt does not ask a value in an unexported field
	type opaquePointer struct{ s *filestore.Store }
	traces := []string{secret}
	for _, verb := range []string{"%d", "%x", "%X", "%o", "%b", "%q", "%c", "%U"} {
		for _, word := range []any{uint32(0x5a5a5a5a), uint64(0x5a5a5a5a5a5a5a5a), bytes.Repeat([]byte{n}, 8), string(bytes.Repeat([]byte{n}, 8))} {
			traces = append(traces, strings.Trim(fmt.Sprintf(verb, word), "[]"))
		}
	}
	for name, key := range map[string]cipher.AEAD{"random nonces": aead(n), "our nonces": withNonces(n)} {
		s := in(t, filepath.Join(t.TempDir(), "sessions"), filestore.WithSeal(key))
		put(t, s, session(1))
		want := "filestore.Store(" + s.Path() + ")"
		for _, v := range []any{
			s, &s, reflect.ValueOf(s).Elem(), opaque{s}, &opaque{s}, opaquePointer{s}, &opaquePointer{s},
			oauth.Config{Store: s}, &oauth.Config{Store: s}, filestore.WithSeal(key),
		} {
			for how, v := range map[string]any{"alone": v, "nested": nested{v}, "in a slice": []any{v}, "in a map": map[string]any{"": v}} {
				printed := map[string]string{}
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%e", "%t"} {
					printed[verb] = fmt.Sprintf(verb, v)
				}
				var text, js bytes.Buffer
				slog.New(slog.NewTextHandler(&text, nil)).Info("", "v", v)
				slog.New(slog.NewJSONHandler(&js, nil)).Info("", "v", v)
				encoded, err := json.Marshal(v)
				if err != nil {
					encoded = []byte(err.Error())
				}
				printed["slog text"], printed["slog JSON"], printed["JSON"] = text.String(), js.String(), string(encoded)
				for verb, out := range printed {
					for _, trace := range traces {
						if strings.Contains(out, trace) {
							t.Errorf("%s: %T %s, with %s: %q is in %.300s", name, v, how, verb, trace, out)
							break
						}
					}
				}
			}
		}
		if got := fmt.Sprintf("%v|%s|%#v|%d", s, s, s, s); got != strings.Join([]string{want, want, want, want}, "|") {
			t.Errorf("it prints as %s", got)
		}
		if got := s.LogValue().String(); got != want {
			t.Errorf("in a log it is %s", got)
		}
	}
	if got := fmt.Sprint((*filestore.Store)(nil)); got != "filestore.Store(none)" {
		t.Errorf("no store prints as %s", got)
	}
}
