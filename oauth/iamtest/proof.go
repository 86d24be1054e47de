package iamtest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
)

// proofs checks DPoP proofs. The lock makes the verifier's clock and nonces
// those of one request, while its memory of proofs stays common to all.
type proofs struct {
	mu sync.Mutex
	v  dpop.Verifier
}

// errNoProof is what a request without a DPoP header fails with.
var errNoProof = &dpop.ProofError{Reason: "the request has no DPoP header"}

// checkProof verifies the proof of the request. want.Method and want.URL are
// filled in. Errors are of type *dpop.ProofError.
func (e *exchange) checkProof(mode NonceMode, want dpop.Expected) (*dpop.VerifiedProof, error) {
	if e.challenge { // a fault: no nonce is good enough
		return nil, &dpop.ProofError{Reason: "the server wants a newer nonce", Err: dpop.ErrUseNonce}
	}
	if len(e.r.Header.Values("DPoP")) == 0 {
		return nil, errNoProof
	}
	want.Method, want.URL = e.r.Method, e.s.URL+e.r.URL.EscapedPath()
	v := e.s.proofs.verifier(e, mode)
	defer e.s.proofs.mu.Unlock()
	proof, err := v.VerifyRequest(e.r, want)
	if err != nil {
		return nil, err
	}
	e.verified(proof)
	return proof, nil
}

// verifier returns the verifier with the clock and the nonces of a request. The
// caller unlocks p.mu.
func (p *proofs) verifier(e *exchange, mode NonceMode) *dpop.Verifier {
	p.mu.Lock()
	p.v.Now = func() time.Time { return e.now }
	p.v.MaxAge, p.v.Leeway = e.opts.ProofMaxAge, e.opts.ProofLeeway
	p.v.CheckNonce = nil
	if mode == NoncesRequired || mode == NoncesOptional && e.rec.Proof.Nonce != "" {
		p.v.CheckNonce = e.nonceValid
	}
	return &p.v
}

// verified records a proof, if there is one.
func (e *exchange) verified(proof *dpop.VerifiedProof) {
	if proof != nil {
		e.rec.Proof.Verified, e.rec.Proof.Thumbprint = true, proof.Thumbprint
	}
}

func (e *exchange) nonceValid(nonce string) bool {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	return e.s.nonces.space(e.opts, e.rec.GrantType).valid(e.now, e.opts, nonce)
}

// giveNonce puts a nonce on the answer, where the endpoint has any to give.
func (e *exchange) giveNonce(mode NonceMode) {
	if mode == NoncesOff && !e.challenge {
		return
	}
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	space := e.s.nonces.space(e.opts, e.rec.GrantType)
	if e.challenge {
		space.renew(e.now)
	}
	nonce := space.current(e.now, e.opts)
	if e.opts.QuietNonces && e.rec.Proof.Nonce == nonce {
		return
	}
	e.header.Set(dpop.NonceHeader, nonce)
}

// thumbprint of the proof's key, with the hash of dpop_jkt.
func thumbprint(p *dpop.VerifiedProof, o *Options) string {
	sum, err := p.Key.Thumbprint(o.ThumbprintHash)
	if err != nil {
		return "" // fits no dpop_jkt
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// peekProof reads what a proof says of itself, for the record, whether or not it
// is right.
func peekProof(r *http.Request) Proof {
	header := r.Header.Values("DPoP")
	p := Proof{Present: len(header) > 0}
	if len(header) != 1 {
		return p
	}
	parts := strings.Split(header[0], ".")
	if len(parts) != 3 {
		return p
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return p
	}
	var claims struct {
		ID    string  `json:"jti"`
		Nonce string  `json:"nonce"`
		Iat   float64 `json:"iat"`
	}
	if json.Unmarshal(payload, &claims) == nil {
		p.ID, p.Nonce, p.IssuedAt = claims.ID, claims.Nonce, time.Unix(int64(claims.Iat), 0).UTC()
	}
	return p
}

// attested reports whether the key of the proof is one that cannot be copied.
func (o *Options) attested(p *dpop.VerifiedProof) bool {
	return p != nil && len(p.Certificates) > 0 && o.VerifyAttestation != nil && o.VerifyAttestation(p.Certificates)
}

// proofCode is the error code of a failed proof, and its reason.
func proofCode(err error) (code, reason string) {
	var pe *dpop.ProofError
	if errors.As(err, &pe) {
		return pe.Code(), pe.Reason
	}
	return "invalid_dpop_proof", "the proof cannot be checked"
}
