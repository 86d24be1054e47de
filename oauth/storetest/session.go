package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// numbered returns a session in which everything follows from its generation, so
// that a mixture of two can be told. Every third is longer than keyrings like.
func numbered(generation uint64) oauth.Session {
	padding := 0
	if generation%3 == 0 {
		padding = 2500
	}
	return padded(generation, padding)
}

func padded(generation uint64, padding int) oauth.Session {
	at := time.Date(2026, 5, 17, 9, 30, 0, 123456789, time.UTC).Add(time.Duration(generation) * time.Second)
	return oauth.Session{
		Provider:      "auth.example",
		ClientID:      "storetest",
		RefreshToken:  oauth.Secret(fmt.Sprintf("rt1.%d.%s", generation, strings.Repeat("r", padding))),
		AccessToken:   oauth.Secret(fmt.Sprintf("t1.%d.%s", generation, strings.Repeat("a", padding))),
		TokenType:     "Bearer",
		Obtained:      at,
		Expiry:        at.Add(12 * time.Hour),
		Scopes:        []string{"openid", "offline_access", fmt.Sprintf("scope:%d", generation)},
		KeyThumbprint: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
		Created:       at.Add(-time.Hour),
		Generation:    generation,
	}
}

// sessions are all kinds of them.
func sessions() map[string]oauth.Session {
	full := numbered(1)
	full.Warning = oauth.WarnNoOfflineScope
	odd := numbered(2)
	odd.Provider = "сервер \"<&>\u2028 \\ \t"
	odd.RefreshToken += "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
	odd.Scopes = nil
	odd.Expiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -5*3600)).Add(-24 * time.Hour)
	return map[string]oauth.Session{
		"with everything": full,
		"odd characters":  odd,
		"imported":        {Provider: "auth.example", ClientID: "c", RefreshToken: "rt1.x", Generation: 1},
		"not renewable":   {Provider: "auth.example", ClientID: "c", AccessToken: "t1.x", Generation: 1 << 53, Warning: oauth.WarnRefreshTokensOff},
	}
}

// same reports how got differs from want.
func same(got, want oauth.Session) error {
	if got.IsZero() || want.IsZero() {
		if got.IsZero() && want.IsZero() {
			return nil
		}
		return fmt.Errorf("the session is %s, want %s", describe(got), describe(want))
	}
	g, err := got.Encode()
	if err != nil {
		return err
	}
	w, err := want.Encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(g, w) {
		return fmt.Errorf("the session is %s, want %s", describe(got), describe(want))
	}
	return nil
}

// whole reports whether a session is one of numbered.
func whole(s oauth.Session) error {
	if err := same(s, numbered(s.Generation)); err != nil {
		return fmt.Errorf("the session is not one that was written: %w", err)
	}
	return nil
}

// describe needs no secrecy: the tokens are those of this package.
func describe(s oauth.Session) string {
	if s.IsZero() {
		return "none"
	}
	data, err := s.Encode()
	if err != nil {
		return err.Error()
	}
	if len(data) > 600 {
		return fmt.Sprintf("%s…%s (%d bytes)", data[:100], data[len(data)-400:], len(data))
	}
	return string(data)
}

// expect checks what Load returns; the zero Session stands for none.
func (b *bench) expect(ctx context.Context, s oauth.Store, want oauth.Session) error {
	ctx, cancel := b.within(ctx)
	defer cancel()
	got, err := s.Load(ctx)
	if want.IsZero() {
		if !errors.Is(err, oauth.ErrNoSession) {
			return fmt.Errorf("Load without a session returned %s, which does not match ErrNoSession", said(err))
		}
		return same(got, want)
	}
	if err != nil {
		return failed("Load", err)
	}
	if err := same(got, want); err != nil {
		return failed("Load", err)
	}
	return nil
}

// put stores a session.
func (b *bench) put(ctx context.Context, s oauth.Store, session oauth.Session) error {
	return b.update(ctx, s, func(oauth.Session) (oauth.Session, error) { return session, nil })
}

// update is Update, with a look at how often it calls fn. Its error is Update's.
func (b *bench) update(ctx context.Context, s oauth.Store, fn func(oauth.Session) (oauth.Session, error)) error {
	ctx, cancel := b.within(ctx)
	defer cancel()
	calls := 0
	err := s.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
		calls++
		return fn(current)
	})
	if err == nil && calls != 1 || calls > 1 {
		return fmt.Errorf("Update called fn %d times", calls)
	}
	return err
}

// said quotes an error, or says that there is none.
func said(err error) string {
	if err == nil {
		return "no error"
	}
	return fmt.Sprintf("the error %q", err.Error())
}

func failed(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }
