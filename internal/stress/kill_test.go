//go:build !race

package stress

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// TestKilledAtAnyMoment kills a process in a loop of renewals, a thousand times,
// each time at another moment. Without the race detector, which would only make
// the processes slow to start: they have nothing to race with.
//
// A kill between the server's rotation and our save cannot be survived: the new
// refresh token was in no memory but the dead one. In a loop that does nothing
// but renew, and waits for the disk each time, that is a large share of the
// moments. Such kills are told by the server's having met a replaced token, and
// must end in "log in again", with a store that works. Every other kill must
// leave a session that renews.
func TestKilledAtAnyMoment(t *testing.T) {
	const kills = 1000
	iam := newServer(t)
	dir := t.TempDir()
	newParent := func() *oauth.Client {
		c, err := newClient(iam.URL, dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if err := login(t.Context(), newParent()); err != nil {
		t.Fatal(err)
	}
	survived, between := 0, 0
	for i := range kills {
		p := start(t, "loop", iam.URL, dir, 0)
		// From the first renewal to some way into a later one.
		time.Sleep(time.Duration(rand.Int64N(int64(12 * time.Millisecond))))
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Wait(); p.cmd.ProcessState.Exited() {
			t.Fatalf("kill %d: the process had ended by itself: %v", i, err)
		}

		// A request of the killed process can still be on its way: what the server
		// makes of it is part of what the kill led to.
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if err := iam.Quiet(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := newParent() // a process that starts now
		session, err := c.Session(t.Context())
		if err != nil {
			t.Fatalf("kill %d: the stored session: %v", i, err)
		}
		ts := c.TokenSource()
		tok, err := ts.Token() // may be served from the store
		if err == nil {
			ts.Invalidate(tok)
			_, err = ts.Token() // now it is a renewal
		}
		info := iam.Introspect(session.RefreshToken.Reveal())
		switch {
		case err == nil:
			survived++
		case errors.Is(err, oauth.ErrLoginRequired) && info.GrantEnded == "a replaced refresh token was used":
			between++
			if after, err := c.Session(t.Context()); err != nil || after.RefreshToken != session.RefreshToken {
				t.Fatalf("kill %d: the refusal changed the store: %v", i, err)
			}
			if err := login(t.Context(), c); err != nil {
				t.Fatalf("kill %d: login: %v", i, err)
			}
		default:
			t.Fatalf("kill %d: the renewal said %v; the server knows the stored token as %s (%s)", i, err, info.State, info.GrantEnded)
		}
		if err := ts.Close(); err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
	}
	t.Logf("%d kills: %d sessions renewed, %d kills fell between the server's rotation and the save and ended in a new login",
		kills, survived, between)
	if survived == 0 || between == 0 {
		t.Errorf("%d survived and %d fell in between: the kills do not fall where they should", survived, between)
	}
}
