package refreshtoken_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

func textLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// printed is v in every way that a program prints a value.
func printed(v any) string {
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&b, verb+"\n", v)
		fmt.Fprintf(&b, verb+"\n", []any{v})
	}
	fmt.Fprintln(&b, v)
	if j, err := json.Marshal(v); err == nil {
		b.Write(j)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("x", "v", v, "list", []any{v})
	}
	return b.String()
}

func TestTargetPrintsNoToken(t *testing.T) {
	const token = "rt1.secretsecret.secretsecretsecret"
	target := refreshtoken.ByToken(token)
	type hidden struct{ target refreshtoken.Target } // fmt does not call methods here
	req := tokenapi.RevokeRequest{RefreshToken: secretOf(t, target)}
	if req.RefreshToken() != token {
		t.Fatal("the transport does not get the token")
	}
	for name, v := range map[string]any{
		"Target": target, "*Target": &target, "[]Target": []refreshtoken.Target{target},
		"in a field": struct{ T refreshtoken.Target }{target}, "in a private field": hidden{target},
		"RevokeRequest": req, "*RevokeRequest": &req,
	} {
		t.Run(name, func(t *testing.T) {
			text := printed(v)
			if strings.Contains(text, "secret") || strings.Contains(text, fmt.Sprintf("%x", "secret")) {
				t.Errorf("%s holds the token", text)
			}
		})
	}
	if got := fmt.Sprintf("%v", target); got != "the refresh token REDACTED" {
		t.Errorf("got %q", got)
	}
}

// secretOf is the token that a transport is given for a target.
func secretOf(t *testing.T, target refreshtoken.Target) func() string {
	t.Helper()
	var got func() string
	c := refreshtoken.New(&fakeTransport{revoke: revokeDone(&got)})
	if _, err := c.Revoke(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTargetString(t *testing.T) {
	for want, target := range map[string]refreshtoken.Target{
		`no refresh token`:                                          {},
		`the refresh token with ID "aje1"`:                          refreshtoken.ByID("aje1"),
		`the refresh tokens with client_id="c" AND subject_id="s"`:  refreshtoken.ByFilter(refreshtoken.RevokeFilter{ClientID: "c", SubjectID: "s"}),
		`the refresh tokens with client_instance_info="yc/0.141.0"`: refreshtoken.ByFilter(refreshtoken.RevokeFilter{ClientInstanceInfo: "yc/0.141.0"}),
		`the refresh tokens with no condition`:                      refreshtoken.ByFilter(refreshtoken.RevokeFilter{}),
		`all refresh tokens of the caller`:                          refreshtoken.AllMine().WithIdempotencyKey("3f0c1c5e-8d5b-4b0a-9b57-0a6f5b6f7d11"),
	} {
		if got := target.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got, err := json.Marshal(target); err != nil || !strings.HasPrefix(string(got), `"`) {
			t.Errorf("JSON: got %s, %v", got, err)
		}
	}
}
