package main

import (
	"context"
	"crypto"
	"io"
	"sync"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/piv"
)

// cardSigner is a key on a card that is looked for when it is needed: most
// commands find a token that is still good and sign nothing. The key stays open
// for the rest of the run, so that a login's proofs share one PIN and touch.
type cardSigner struct {
	public      crypto.PublicKey
	options     piv.Options
	interrupted <-chan struct{} // closed when the user does not want to go on

	mu  sync.Mutex
	key *piv.Key
}

var _ dpop.ContextSigner = (*cardSigner)(nil)

func (s *cardSigner) Public() crypto.PublicKey { return s.public }

func (s *cardSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignContext(context.Background(), digest, opts)
}

// SignContext ends its waits for a person when the user interrupts the program.
// A renewal would go on waiting: it is not bound to the context of the one who
// asked for it, for it must not be lost once it is sent. This is before that.
func (s *cardSigner) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.interrupted:
			cancel()
		case <-ctx.Done():
		}
	}()
	key, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return key.SignContext(ctx, digest, opts)
}

func (s *cardSigner) open(ctx context.Context) (*piv.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key == nil {
		key, err := piv.Open(ctx, s.options)
		if err != nil {
			return nil, err
		}
		s.key = key
	}
	return s.key, nil
}

// cardOptions adds what this run knows of cards.
func (a *app) cardOptions(o piv.Options) piv.Options {
	o.Trust = a.trust
	return o
}
