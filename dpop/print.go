package dpop

import (
	"crypto"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// Types that hold or lead to a credential format themselves: fmt reads exported and
// unexported fields alike, and follows pointers where a verb does not fit.

// String returns the algorithm and the SHA-256 thumbprint of the key.
func (p *Prover) String() string {
	if p == nil || p.signer == nil {
		return "dpop.Prover(no key)"
	}
	jkt, err := p.Thumbprint(crypto.SHA256)
	if err != nil {
		jkt = "no thumbprint"
	}
	return fmt.Sprintf("dpop.Prover(%s, %s)", p.alg.name, jkt)
}

// Format implements [fmt.Formatter] for every verb with the text of String, as the
// private key is among the fields.
func (p *Prover) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// LogValue implements [slog.LogValuer] with the text of String.
func (p *Prover) LogValue() slog.Value { return slog.StringValue(p.String()) }

// String returns a fixed text.
func (t *Transport) String() string { return "dpop.Transport" }

// Format implements [fmt.Formatter] for every verb with a fixed text, as fields lead
// to the token and the key.
func (t *Transport) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue implements [slog.LogValuer] with a fixed text.
func (t *Transport) LogValue() slog.Value { return slog.StringValue(t.String()) }

// String returns a fixed text.
func (n *Nonces) String() string { return "dpop.Nonces" }

// Format implements [fmt.Formatter] for every verb with a fixed text.
func (n *Nonces) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.String()) }

// LogValue implements [slog.LogValuer] with a fixed text.
func (n *Nonces) LogValue() slog.Value { return slog.StringValue(n.String()) }

// String returns a fixed text.
func (n *NonceIssuer) String() string { return "dpop.NonceIssuer" }

// Format implements [fmt.Formatter] for every verb with a fixed text, as the keys are among
// the fields.
func (n *NonceIssuer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.String()) }

// LogValue implements [slog.LogValuer] with a fixed text.
func (n *NonceIssuer) LogValue() slog.Value { return slog.StringValue(n.String()) }

// String returns the claims. The access token is redacted, and an invalid URL is
// omitted.
func (c Claims) String() string {
	iat := "now"
	if !c.IssuedAt.IsZero() {
		iat = c.IssuedAt.Format(time.RFC3339)
	}
	return fmt.Sprintf("{Method:%q URL:%q Nonce:%q AccessToken:%s IssuedAt:%s}", c.Method, printURL(c.URL), c.Nonce, mark(c.AccessToken), iat)
}

// Format implements [fmt.Formatter] with the text of String for every verb but %p and %w,
// for which package fmt does not call it. Nor does it for an unexported field of a struct.
func (c Claims) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalText implements [encoding.TextMarshaler] with the text of String, for logs in
// JSON.
func (c Claims) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// LogValue implements [slog.LogValuer] with the text of String.
func (c Claims) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String returns the expected values. The access token is redacted,
// and an invalid URL is omitted.
func (e Expected) String() string {
	return fmt.Sprintf("{Method:%q URL:%q AccessToken:%s Thumbprint:%q}", e.Method, printURL(e.URL), mark(e.AccessToken), e.Thumbprint)
}

// Format implements [fmt.Formatter] with the text of String for every verb but %p and %w,
// for which package fmt does not call it. Nor does it for an unexported field of a struct.
func (e Expected) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, e.String()) }

// MarshalText implements [encoding.TextMarshaler] with the text of String, for logs in
// JSON.
func (e Expected) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// LogValue implements [slog.LogValuer] with the text of String.
func (e Expected) LogValue() slog.Value { return slog.StringValue(e.String()) }

// printURL is the URL as a proof has it, without the query, in which some services
// expect credentials.
func printURL(raw string) string {
	htu, err := normalizeURL(raw)
	if err != nil {
		return ""
	}
	return htu
}

func mark(secret string) string {
	if secret == "" {
		return ""
	}
	return redact.Mark
}
