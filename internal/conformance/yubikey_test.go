//go:build cgo && linux

package conformance

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/pivtest"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// person enters the PIN, and counts how often they were asked for it.
type person struct{ pins atomic.Int32 }

func (p *person) PIN(context.Context, piv.PINRequest) (string, error) {
	p.pins.Add(1)
	return pivtest.DefaultPIN, nil
}

func (p *person) Touch(context.Context, piv.TouchRequest) func() { return nil }

// TestFlowYubiKey takes a key that never leaves its card through the life of a
// refresh token, at both servers: PIN "once", touch "always", slot 9a.
func TestFlowYubiKey(t *testing.T) {
	var touches atomic.Int32
	card := pivtest.Start(t, pivtest.Config{Firmware: pivtest.Firmware57, Touch: func(context.Context) bool {
		touches.Add(1)
		return true
	}})
	trust := piv.Trust{Roots: card.CA().Roots(), Intermediates: card.CA().IntermediatePool()}
	who := new(person)
	key, err := piv.Generate(bounded(t), piv.Options{Serial: card.Serial(), Slot: piv.SlotAuthentication, Prompt: who, Trust: trust},
		piv.KeySpec{PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyAlways})
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	attestation, err := key.Attestation(bounded(t))
	if err != nil || !attestation.Secure() {
		t.Fatalf("attestation %+v, %v: want a secure key", attestation, err)
	}
	report := func(t *testing.T, signatures int32) {
		t.Helper()
		t.Logf("%d signatures, each with a touch; the PIN was asked for %d times", signatures, who.pins.Load())
		if touches.Load() != signatures || who.pins.Load() == 0 {
			t.Errorf("%d touches for %d signatures, and %d PINs", touches.Load(), signatures, who.pins.Load())
		}
		touches.Store(0)
	}

	t.Run("oidc-provider", func(t *testing.T) {
		f := newFlow(t)
		a := f.newApp(t, f.Clients.Native, key, f.revokes(f.Clients.Native))
		a.login(t) // two proofs: one is answered with a challenge
		for range 3 {
			a.renews(t)
		}
		f.receives(t, func() {
			if err := a.Logout(bounded(t)); err != nil {
				t.Fatal(err)
			}
		}, "revocation 200")
		f.audit(t)
		report(t, 5)
	})

	t.Run("an IAM that demands attested keys", func(t *testing.T) {
		iam := iamtest.Start(t, iamtest.Options{
			OnlyAttestedKeys: true,
			VerifyAttestation: func(chain []*x509.Certificate) bool {
				a, err := piv.VerifyAttestation(chain, trust)
				return err == nil && a.Secure()
			},
		})
		attested, err := dpop.New(key, dpop.WithCertificateChain(attestation.Certificates()))
		if err != nil {
			t.Fatal(err)
		}
		c := attestedClient(t, iam, attested)
		session, err := c.Login(bounded(t), oauth.LoginOptions{OpenURL: iam.OpenURL})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			iam.Advance(13 * time.Hour)
			if _, err := c.TokenSource().TokenContext(bounded(t)); err != nil {
				t.Fatal(err)
			}
		}
		api := refreshtoken.NewClient(&http.Client{Transport: &dpop.Transport{Source: c.TokenSource(), Base: iam.HTTPClient().Transport}},
			refreshtoken.WithEndpoint(iam.IAMEndpoint()), refreshtoken.WithOperationEndpoint(iam.OperationEndpoint()))
		for tok, err := range api.List(bounded(t), refreshtoken.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if tok.ProtectionLevel != refreshtoken.SecureKeyDPoP {
				t.Errorf("the server calls the token's protection %s", tok.ProtectionLevel)
			}
		}
		op, err := api.Revoke(bounded(t), refreshtoken.ByToken(session.RefreshToken.Reveal()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Wait(bounded(t)); err != nil {
			t.Fatal(err)
		}
		iam.Advance(13 * time.Hour)
		_, err = c.TokenSource().TokenContext(bounded(t))
		wantReason(t, err, oauth.ReasonRejected)
		report(t, 5) // a login, three renewals, one more that is refused
	})

	t.Run("which refuses a key that is not attested", func(t *testing.T) {
		iam := iamtest.Start(t, iamtest.Options{OnlyAttestedKeys: true})
		plain, err := dpop.New(key256(t))
		if err != nil {
			t.Fatal(err)
		}
		_, err = attestedClient(t, iam, plain).Login(bounded(t), oauth.LoginOptions{OpenURL: iam.OpenURL})
		var server *oauth.ServerError
		if !errors.As(err, &server) || server.Code != "invalid_dpop_proof" {
			t.Errorf("error %v", err)
		}
	})
}

func attestedClient(t *testing.T, iam *iamtest.Server, prover *dpop.Prover) *oauth.Client {
	t.Helper()
	c, err := oauth.New(iam.OAuthConfig(prover))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.TokenSource().Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}
