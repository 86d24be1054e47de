package refreshtoken

import (
	"context"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// A lookahead fetches the pages of one listing, each while the loop works on the
// one before it. It never has more than one that the loop has not asked for.
type lookahead struct {
	client *Client
	ctx    context.Context // of the listing: it lives as long as this value
	cancel context.CancelFunc
	off    bool

	req   tokenapi.ListRequest // of the page that comes next; not changed while that is in flight
	ahead chan fetched         // that page, if it is in flight; nil if it is not
}

type fetched struct {
	page *Page
	err  error
}

func (c *Client) lookahead(ctx context.Context, off bool) *lookahead {
	ctx, cancel := context.WithCancel(ctx)
	return &lookahead{client: c, ctx: ctx, cancel: cancel, off: off}
}

// begin begins to fetch the page that comes next.
func (l *lookahead) begin() {
	if l.off || l.ahead != nil {
		return
	}
	ahead := make(chan fetched, 1) // so that the goroutine ends without a receiver
	l.ahead = ahead
	go func() {
		page, err := l.client.page(l.ctx, l.req)
		ahead <- fetched{page, err}
	}()
}

// next returns the page that comes next.
func (l *lookahead) next() (*Page, error) {
	if l.ahead == nil {
		return l.client.page(l.ctx, l.req)
	}
	f := <-l.ahead
	l.ahead = nil
	if f.err == nil && l.ctx.Err() != nil {
		// It came before ctx ended, but the loop asks for it after that.
		return nil, &TransportError{Method: methodList, Err: retry.Ended(l.ctx)}
	}
	return f.page, f.err
}

// patience is how long stop waits for a request that does not end with its ctx.
const patience = 100 * time.Millisecond

// stop cancels what is in flight, and returns when it has ended, so that nothing of a
// listing outlives its loop. It does not wait for a token source that hangs: an
// oauth2.TokenSource has no ctx that could end it.
func (l *lookahead) stop() {
	l.cancel()
	if l.ahead == nil {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-l.ahead:
	case <-timer.C:
	}
}
