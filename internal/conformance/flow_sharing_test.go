package conformance

import (
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

func TestFlowSharing(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	// Whoever loses every time should still have a nonce that is good.
	const life, rounds = 10 * time.Second, 10
	f.setAccessTokenTTL(t, life)

	t.Run("a thousand goroutines on an expired token are one request", func(t *testing.T) {
		a := f.newApp(t, f.Clients.Native, key256(t))
		session := a.login(t)
		f.advance(t, life)
		f.receives(t, func() { crowd(t, session, 1000, a) }, "token 200")
		if renewed, adopted := a.count(oauth.EventRenewed), a.count(oauth.EventAdopted); renewed != 1 || adopted != 0 {
			t.Errorf("%d tokens renewed, %d adopted: the goroutines did not share one renewal", renewed, adopted)
		}
	})

	t.Run("two processes with one store are one request", func(t *testing.T) {
		signer, store := key256(t), oauth.NewMemoryStore()
		shared := func(c *oauth.Config) { c.Store = store }
		a, b := f.newApp(t, f.Clients.Native, signer, shared), f.newApp(t, f.Clients.Native, signer, shared)
		a.login(t)
		f.advance(t, life)
		f.receives(t, func() { b.token(t) }, firstTokenChallenge, "token 200") // now both know a nonce
		for range rounds {
			session := a.stored(t)
			f.advance(t, life)
			f.receives(t, func() { crowd(t, session, 200, a, b) }, "token 200")
		}
		renewed := a.count(oauth.EventRenewed) + b.count(oauth.EventRenewed)
		adopted := a.count(oauth.EventAdopted) + b.count(oauth.EventAdopted)
		if renewed != rounds+1 || adopted != rounds {
			t.Errorf("%d tokens renewed, %d adopted, want %d and %d", renewed, adopted, rounds+1, rounds)
		}
	})

	f.audit(t)
}

// crowd calls the token sources of programs from n goroutines at once, and wants
// the one new token from all of them.
func crowd(t *testing.T, old oauth.Session, n int, programs ...*app) {
	t.Helper()
	ctx := bounded(t)
	start, results := make(chan struct{}), make(chan string, n)
	var wg sync.WaitGroup
	for i := range n {
		source := programs[i%len(programs)].TokenSource()
		wg.Go(func() {
			<-start
			tok, err := source.TokenContext(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			results <- tok.AccessToken
		})
	}
	close(start)
	wg.Wait()
	close(results)
	got := make(map[string]int)
	for token := range results {
		got[token]++
	}
	if len(got) != 1 || got[programs[0].stored(t).AccessToken.Reveal()] != n || got[old.AccessToken.Reveal()] != 0 {
		t.Errorf("%d callers got %d different tokens", n, len(got))
	}
}
