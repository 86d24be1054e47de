package refreshtoken

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// ListOptions configures a listing. The zero value lists every refresh token of the
// caller.
type ListOptions struct {
	// SubjectID is the account whose tokens are listed, at most 50 characters.
	// For an account other than the caller's, the caller needs a role: see the
	// package documentation. Optional. Default: the caller.
	SubjectID string
	// Filter selects tokens. Optional. Default: all.
	Filter Filter
	// PageSize is the maximum number of tokens in one response, 0 to 1000. A response
	// with more is a [*ResponseError]. It does not limit the listing as a whole.
	// Optional. Default: 100, chosen by the server.
	PageSize int
	// PageToken starts the listing at a later page. It is the NextPageToken of a
	// [Page] with the same options, at most 2000 characters.
	// Optional. Default: the first page.
	PageToken string
	// NoLookahead fetches a page only when the loop gets to it. Otherwise
	// the next page is fetched when the loop reaches the middle of this one, so
	// two pages are in memory, and a loop that breaks after that has fetched one
	// unused page. Optional. Default: false.
	NoLookahead bool
}

// A Page is one response to a listing.
type Page struct {
	// RefreshTokens are the tokens, in the order of the server. There may be none,
	// even on a page that is not the last.
	RefreshTokens []*RefreshToken
	// NextPageToken is the [ListOptions] PageToken of the next page, ""
	// on the last.
	NextPageToken string
	// Trace holds the identifiers that the server gave the exchange.
	Trace
}

// List iterates over the refresh tokens that opts selects (Yandex Cloud IAM API,
// RefreshToken.List). While the loop works on one page, the next one is fetched,
// unless opts.NoLookahead is set. Each range starts a new listing. No request is in flight
// once the loop exits, because a break cancels it and waits for it to end. If a
// RoundTripper ignores cancellation, such as the one of oauth2.NewClient with a
// token source that hangs, the wait ends after 100 ms.
//
// An error comes with a nil token and ends the iteration; the tokens before it
// are valid. It is an [*ArgumentError], an [*APIError], a [*TransportError] or a
// [*ResponseError]. The latter wraps [ErrPageTokenRepeated] if the server repeats a page
// token, and is also the error after 100 pages in a row without tokens, or for a page token
// that is too long to be sent. To continue after an error, iterate over [Client.Pages] and
// keep the last NextPageToken.
func (c *Client) List(ctx context.Context, opts ListOptions) iter.Seq2[*RefreshToken, error] {
	opts.Filter = opts.Filter.clone() // the caller may change its own while iterating
	return func(yield func(*RefreshToken, error) bool) {
		c.pages(ctx, opts, func(page *Page, err error, ahead func()) bool {
			if err != nil {
				return yield(nil, err)
			}
			for i, t := range page.RefreshTokens {
				if i == len(page.RefreshTokens)/2 {
					ahead() // a loop that came so far is likely to go on
				}
				if !yield(t, nil) {
					return false
				}
			}
			return true
		})
	}
}

// Pages is like [Client.List], but iterates over the pages as the server sends them,
// including empty ones. The next page is fetched as soon as the loop has this one.
func (c *Client) Pages(ctx context.Context, opts ListOptions) iter.Seq2[*Page, error] {
	opts.Filter = opts.Filter.clone()
	return func(yield func(*Page, error) bool) {
		c.pages(ctx, opts, func(page *Page, err error, ahead func()) bool {
			ahead()
			return yield(page, err)
		})
	}
}

// maxEmptyPages in a row end a listing: the server may filter after it has paged, but a
// listing that yields nothing cannot be left by its loop.
const maxEmptyPages = 100

// pages calls yield with each page, until that returns false or there is an error,
// which comes without a page. ahead begins to fetch the page after this one.
func (c *Client) pages(ctx context.Context, opts ListOptions, yield func(page *Page, err error, ahead func()) bool) {
	nothing := func() {}
	req, err := opts.request()
	if err != nil {
		yield(nil, err, nothing)
		return
	}
	pages := c.lookahead(ctx, opts.NoLookahead)
	defer pages.stop()
	pages.req = req
	asked, empty := pageTokens{}, 0
	for {
		asked.add(req.PageToken)
		page, err := pages.next()
		if err != nil {
			yield(nil, err, nothing)
			return
		}
		if empty++; len(page.RefreshTokens) > 0 {
			empty = 0
		}
		next, trace, ahead := page.NextPageToken, page.Trace, nothing
		var wrong *ResponseError // with the page that would come next
		switch {
		case next == "":
		case checkText("", next, maxPageToken, "") != nil:
			wrong = &ResponseError{Method: methodList, Trace: trace, Reason: fmt.Sprintf(
				"the page token of the next page has more than the %d characters that the API takes, or is not valid UTF-8; the pages so far are good", maxPageToken)}
		case asked.has(next):
			wrong = &ResponseError{Method: methodList, Err: ErrPageTokenRepeated, Trace: trace,
				Reason: ErrPageTokenRepeated.Error() + ", so that the listing would never end; the pages so far are good"}
		case empty >= maxEmptyPages:
			wrong = &ResponseError{Method: methodList, Trace: trace, Reason: fmt.Sprintf(
				"the server sent %d empty pages in a row, so that the listing may never end; it goes on from the last NextPageToken of Pages", maxEmptyPages)}
		default:
			req.PageToken = next
			pages.req, ahead = req, pages.begin
		}
		if !yield(page, nil, ahead) || next == "" {
			return
		}
		if wrong != nil {
			yield(nil, wrong, nothing)
			return
		}
	}
}

func (c *Client) page(ctx context.Context, req tokenapi.ListRequest) (*Page, error) {
	return call(ctx, c, methodList, cleanerOf(noSecret), func(ctx context.Context, call tokenapi.Call) (*Page, error) {
		return c.transport.List(ctx, call, req)
	}, cleanPage)
}

func (o ListOptions) request() (tokenapi.ListRequest, error) {
	if err := checkText("ListOptions.SubjectID", o.SubjectID, maxID, "it takes the ID of one account"); err != nil {
		return tokenapi.ListRequest{}, err
	}
	if o.PageSize < 0 || o.PageSize > maxPageSize {
		return tokenapi.ListRequest{}, &ArgumentError{"ListOptions.PageSize", fmt.Sprintf(
			"is %d, but the API takes 0 to %d: the iteration goes on to the next page by itself", o.PageSize, maxPageSize)}
	}
	if err := checkText("ListOptions.PageToken", o.PageToken, maxPageToken, "it takes the NextPageToken of a Page"); err != nil {
		return tokenapi.ListRequest{}, err
	}
	expr, err := o.Filter.expression()
	if err != nil {
		return tokenapi.ListRequest{}, err
	}
	return tokenapi.ListRequest{SubjectID: o.SubjectID, PageSize: o.PageSize, PageToken: o.PageToken, Filter: expr}, nil
}

// pageTokens remembers the tokens of a listing, by their hash: a token has up to
// 2000 characters, and a listing any number of pages.
type pageTokens map[[sha256.Size]byte]struct{}

func (p pageTokens) add(token string) { p[sha256.Sum256([]byte(token))] = struct{}{} }

func (p pageTokens) has(token string) bool {
	_, ok := p[sha256.Sum256([]byte(token))]
	return ok
}

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
		f := fetched{err: &TransportError{Method: methodList, Err: errGoexit}}
		defer func() { ahead <- f }()
		f.page, f.err = l.client.page(l.ctx, l.req)
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
