package refreshtoken

import (
	"context"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// A lookahead fetches the pages of one listing, each while the loop works on the
// one before it. It never has more than one that the loop has not asked for.
type lookahead struct {
	client *Client
	ctx    context.Context // of the listing: it lives as long as this value
	cancel context.CancelFunc
	off    bool

	req   ListRequest  // of the page that comes next
	ahead chan fetched // that page, if it is under way; nil if it is not
}

type fetched struct {
	page *Page
	err  error
}

func (c *Client) lookahead(ctx context.Context, off bool) *lookahead {
	ctx, cancel := context.WithCancel(ctx)
	return &lookahead{client: c, ctx: ctx, cancel: cancel, off: off}
}

// begin says which page comes next, and begins to fetch it.
func (l *lookahead) begin(req ListRequest) {
	l.req = req
	if l.off {
		return
	}
	ahead := make(chan fetched, 1) // so that the goroutine ends without a receiver
	l.ahead = ahead
	go func() {
		page, err := l.client.page(l.ctx, req)
		ahead <- fetched{page, err}
	}()
}

// next returns the page that comes next. Without a begin that is the one of req.
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

// stop ends what is under way, and returns when it has ended: nothing of a
// listing outlives its loop.
func (l *lookahead) stop() {
	l.cancel()
	if l.ahead != nil {
		<-l.ahead
	}
}
