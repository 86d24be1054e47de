package oauth_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// An observer that blocks, such as a logger that writes to a full pipe, keeps the lock of
// the store from nobody.
func TestBlockedObserverDoesNotHoldTheStore(t *testing.T) {
	for _, kind := range []oauth.EventKind{oauth.EventRetry, oauth.EventWaiting, oauth.EventRenewed} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := oauth.NewMemoryStore()
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					if n == 1 && kind == oauth.EventRetry {
						return answer(503, ""), nil
					}
					return rotate(n, r)
				})
				stuck := make(chan struct{})
				var blocked atomic.Bool
				shared := func(cfg *oauth.Config) { cfg.Store = store }
				a, _ := newClient(t, srv, shared, func(cfg *oauth.Config) {
					cfg.Observer = func(e oauth.Event) {
						if e.Kind == kind && blocked.CompareAndSwap(false, true) {
							<-stuck
						}
					}
				})
				b, _ := openClient(t, srv, shared)
				if kind == oauth.EventWaiting {
					go func() {
						_ = store.Update(context.Background(), func(s oauth.Session) (oauth.Session, error) {
							time.Sleep(3 * time.Second)
							return s, nil
						})
					}()
					synctest.Wait()
				}
				done := make(chan error, 1)
				go func() {
					_, err := a.TokenSource().Renew(context.Background())
					done <- err
				}()
				time.Sleep(10 * time.Second)
				if !blocked.Load() {
					t.Fatal("the observer was not told")
				}
				if _, err := b.TokenSource().Renew(t.Context()); err != nil {
					t.Errorf("another client, while the observer of the first one blocks: %v", err)
				}
				close(stuck)
				if err := <-done; err != nil {
					t.Error(err)
				}
				closeSource(t, a)
				closeSource(t, b)
			})
		})
	}
}

// What is told later is told as it happened.
func TestRetryIsToldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c, log := newClient(t, newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return answer(503, "", "Retry-After", "7"), nil
			}
			return rotate(n, r)
		}))
		wantToken(t, c.TokenSource(), "at-2")
		log.mu.Lock()
		defer log.mu.Unlock()
		events := log.events[len(log.events)-2:]
		if retry := events[0]; retry.Kind != oauth.EventRetry || retry.Attempt != 1 || retry.Wait != 7*time.Second || !retry.Time.Equal(start) {
			t.Errorf("%+v", retry)
		}
		if renewed := events[1]; renewed.Kind != oauth.EventRenewed || !renewed.Time.Equal(start.Add(7*time.Second)) {
			t.Errorf("%+v", renewed)
		}
	})
}
