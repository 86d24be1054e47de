package iamtest

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// maxSlow bounds how long a request is kept waiting.
const maxSlow = time.Minute

// oversize is how much an oversized answer is longer than the right one, in
// bytes: together more than the 16 MiB that this module's clients read at most.
const oversize = 16 << 20

// A Fault is one way in which a request or its answer goes wrong. Make one with a
// constructor, and let it happen with [Server.Inject].
type Fault struct{ is iamapi.Fault }

// LostRequest closes the connection without a response; the request has no effect.
//
// Go's http.Transport sends a request a second time by itself if the connection
// had served others before, and the request is a GET, or has an Idempotency-Key
// header. To make a client see the fault, inject it more than once.
func LostRequest() Fault { return Fault{iamapi.Fault{Kind: iamapi.FaultLostRequest}} }

// LostAnswer closes the connection without an answer after what was asked for
// has happened. What [LostRequest] says of http.Transport holds here as well.
func LostAnswer() Fault { return Fault{iamapi.Fault{Kind: iamapi.FaultLostAnswer, TakesEffect: true}} }

// HTTPStatus responds with an error status, as a proxy or an overloaded server does,
// with Retry-After if retryAfter is positive.
func HTTPStatus(status int, retryAfter time.Duration) Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultHTTPStatus, Status: status, RetryAfter: retryAfter}}
}

// Slow waits before anything happens, for at most a minute and no longer than
// the client waits. If the client gives up, nothing has happened.
func Slow(d time.Duration) Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultSlow, Duration: min(d, maxSlow)}}
}

// Truncated sends half of the right answer and closes the connection.
func Truncated() Fault { return Fault{iamapi.Fault{Kind: iamapi.FaultTruncated, TakesEffect: true}} }

// Oversized sends the right answer and 16 MiB of white space after it.
func Oversized() Fault { return Fault{iamapi.Fault{Kind: iamapi.FaultOversized, TakesEffect: true}} }

// HTML answers with a page for people, as captive portals (200) and proxies (502;
// 404 where they do not know the way) do.
func HTML(status int) Fault { return Fault{iamapi.Fault{Kind: iamapi.FaultHTML, Status: status}} }

// Redirect answers 307 with a URL of another origin, where a client that follows
// would send its credentials. What arrives there is recorded as
// [EndpointElsewhere].
func Redirect() Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultRedirect, Status: http.StatusTemporaryRedirect}}
}

// WrongContentType sends the right answer as text/html.
func WrongContentType() Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultWrongContentType, TakesEffect: true}}
}

// DuplicateMember sends the right answer with its first member twice, with
// different values: two readers may understand it differently (RFC 8259 §4).
func DuplicateMember() Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultDuplicateMember, TakesEffect: true}}
}

// UnknownMembers adds members that nobody knows yet to the right answer. Clients
// have to ignore them (RFC 6749 §5.1).
func UnknownMembers() Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultUnknownMembers, TakesEffect: true}}
}

// EmptyBody sends the status and headers of the right answer, and no body.
func EmptyBody() Fault { return Fault{iamapi.Fault{Kind: iamapi.FaultEmptyBody, TakesEffect: true}} }

// NonceChallenge answers use_dpop_nonce with a new nonce, whatever nonce the
// proof has. Nothing has happened.
func NonceChallenge() Fault { return Fault{iamapi.Fault{Kind: iamapi.FaultNonceChallenge}} }

// nonceChallengeTwice does so twice in a row, which no sound server does.
func nonceChallengeTwice() Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultNonceChallenge, Times: 2}}
}

// RepeatedPage answers a page with the page token that asked for it, so that a
// client which trusts the server comes back to the same page for ever. A first
// page that is the last one gets a next one all the same, which is empty.
func RepeatedPage() Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultRepeatedPage, TakesEffect: true}}
}

// OperationNotFound answers a poll with the google.rpc.Status NOT_FOUND, as if the
// Operation had been forgotten. The Operation goes on, and what it revokes is
// revoked.
func OperationNotFound() Fault { return Fault{iamapi.Fault{Kind: iamapi.FaultOperationNotFound}} }

// ForeignOperation answers with another Operation than the one that was asked
// for, or begun: it is done, of another subject, and names other tokens.
func ForeignOperation() Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultForeignOperation, TakesEffect: true}}
}

// Echo responds with the credential of the request, such as its refresh token or
// access token, in every header and every string of the body, as some proxies and
// debugging servers do. With status 0 it is otherwise the right response, after the
// effect; with another status it is an error, before the effect.
func Echo(status int) Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultEcho, Status: status, TakesEffect: status == 0}}
}

// ClockSkew makes the server's clock be ahead by d, or behind if d is negative:
// the Date header, the time that proofs are held against, and the time of
// whatever is issued. A wrong clock stays wrong, so it lasts until
// [Server.ClearFaults], whatever number is given to Inject, and other faults can
// happen at the same time.
func ClockSkew(d time.Duration) Fault {
	return Fault{iamapi.Fault{Kind: iamapi.FaultClockSkew, Duration: d, TakesEffect: true}}
}

// AfterEffect returns the same fault, after the request has taken effect: for instance
// a 504 of a proxy that gave up although the server did not.
func (f Fault) AfterEffect() Fault {
	f.is.TakesEffect = true
	return f
}

// AllFaults returns one fault of every kind, and the variants that differ for a
// client, for tests that run a matrix. [Fault.AppliesTo] says which make sense where.
func AllFaults() []Fault {
	return []Fault{
		LostRequest(), LostAnswer(),
		HTTPStatus(http.StatusInternalServerError, 0),
		HTTPStatus(http.StatusServiceUnavailable, 0),
		HTTPStatus(http.StatusServiceUnavailable, time.Second),
		HTTPStatus(http.StatusGatewayTimeout, 0).AfterEffect(),
		HTTPStatus(http.StatusTooManyRequests, 0),
		HTTPStatus(http.StatusTooManyRequests, time.Second),
		Slow(200 * time.Millisecond), Slow(200 * time.Millisecond).AfterEffect(),
		Truncated(), Oversized(), EmptyBody(),
		HTML(http.StatusOK), HTML(http.StatusNotFound), HTML(http.StatusBadGateway),
		Redirect(), WrongContentType(), DuplicateMember(), UnknownMembers(),
		NonceChallenge(), nonceChallengeTwice(), RepeatedPage(),
		OperationNotFound(), ForeignOperation(),
		Echo(0), Echo(http.StatusBadRequest), Echo(http.StatusTemporaryRedirect),
		ClockSkew(5 * time.Minute), ClockSkew(-5 * time.Minute),
	}
}

// AppliesTo reports whether the fault can happen at the endpoint. For example, a
// redirect to the client has no body to corrupt, and only endpoints that accept proofs
// have nonces.
func (f Fault) AppliesTo(e Endpoint) bool {
	switch f.is.Kind {
	case iamapi.FaultNonceChallenge:
		return e == EndpointToken || e == EndpointResource
	case iamapi.FaultRepeatedPage:
		return e == EndpointList
	case iamapi.FaultOperationNotFound:
		return e == EndpointOperation
	case iamapi.FaultForeignOperation:
		return e == EndpointOperation || e == EndpointRevoke
	case iamapi.FaultEcho: // an answer of RFC 6749 §5.1 with wrong strings is no login or renewal
		return e != EndpointAuthorize && (f.is.Status != 0 || e != EndpointToken)
	case iamapi.FaultTruncated, iamapi.FaultOversized, iamapi.FaultWrongContentType, iamapi.FaultDuplicateMember, iamapi.FaultUnknownMembers, iamapi.FaultEmptyBody:
		return e != EndpointAuthorize
	}
	return true
}

// String names the fault, as in "status 503, Retry-After 1s".
func (f Fault) String() string { return f.is.String() }

// injected is a fault that is still to happen.
type injected struct {
	endpoint Endpoint
	fault    Fault
	left     int // requests; negative: no end
	hits     int // requests that it happened to
}

// A FaultError means that a fault cannot happen: its endpoint or kind is misspelled,
// or it makes no sense there.
type FaultError struct {
	Endpoint Endpoint
	Fault    Fault
	Reason   string
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("iamtest: the fault %q cannot happen at the endpoint %q: %s", e.Fault, string(e.Endpoint), e.Reason)
}

// faulty are the endpoints where faults can happen.
var faulty = []Endpoint{
	EndpointAuthorize, EndpointToken, EndpointList, EndpointRevoke, EndpointOperation, EndpointEndpoints, EndpointResource, EndpointOther,
}

var faultKinds = []iamapi.FaultKind{
	iamapi.FaultLostRequest, iamapi.FaultLostAnswer, iamapi.FaultHTTPStatus, iamapi.FaultSlow, iamapi.FaultTruncated, iamapi.FaultOversized, iamapi.FaultHTML, iamapi.FaultRedirect,
	iamapi.FaultWrongContentType, iamapi.FaultDuplicateMember, iamapi.FaultUnknownMembers, iamapi.FaultEmptyBody, iamapi.FaultNonceChallenge, iamapi.FaultRepeatedPage,
	iamapi.FaultClockSkew, iamapi.FaultOperationNotFound, iamapi.FaultForeignOperation, iamapi.FaultEcho,
}

// withStatus are the kinds whose Status is that of the answer.
var withStatus = []iamapi.FaultKind{iamapi.FaultHTTPStatus, iamapi.FaultHTML, iamapi.FaultRedirect}

// check says why the fault cannot happen at the endpoint; "" if it can.
func (f Fault) check(e Endpoint) (problem string) {
	statusNeeded := slices.Contains(withStatus, f.is.Kind)
	switch {
	case e == EndpointElsewhere:
		return "no client should get there"
	case !slices.Contains(faulty, e):
		return fmt.Sprintf("there is no such endpoint; there are %q", faulty)
	case !slices.Contains(faultKinds, f.is.Kind):
		return fmt.Sprintf("there is no such kind of fault; there are %q", faultKinds)
	case (statusNeeded || f.is.Kind == iamapi.FaultEcho && f.is.Status != 0) && (f.is.Status < 200 || f.is.Status > 599):
		return "its status is not one that an answer can have"
	case f.is.Status != 0 && !statusNeeded && f.is.Kind != iamapi.FaultEcho:
		return "this kind has no status"
	case f.is.RetryAfter != 0 && f.is.Kind != iamapi.FaultHTTPStatus:
		return "this kind has no Retry-After"
	case f.is.RetryAfter < 0 || f.is.RetryAfter%time.Second != 0:
		return "Retry-After is not a number of seconds"
	case f.is.Duration != 0 && f.is.Kind != iamapi.FaultSlow && f.is.Kind != iamapi.FaultClockSkew:
		return "this kind has no duration"
	case f.is.Duration < 0 && f.is.Kind == iamapi.FaultSlow:
		return "it cannot take less than no time"
	case f.is.Times < 0:
		return "Times is negative"
	case !f.AppliesTo(e):
		return "it makes no sense there"
	}
	return ""
}

// Inject makes the fault happen to the next n requests of the endpoint, or to all
// until [Server.ClearFaults] if n is negative. Faults of one endpoint happen one after
// the other, in the order of injection.
//
// A fault that cannot happen is not injected; the error is a [*FaultError]. With a
// server of [Start] it also fails the test, so the error can be ignored. A fault that
// has never happened by the end of the test fails it, too.
func (s *Server) Inject(e Endpoint, f Fault, n int) error {
	if problem := f.check(e); problem != "" {
		err := &FaultError{e, f, problem}
		if s.t != nil {
			s.t.Helper()
			s.t.Errorf("%v", err)
		}
		return err
	}
	if n == 0 {
		return nil
	}
	if f.is.Kind == iamapi.FaultClockSkew {
		n = -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.faults {
		if in.endpoint == e && in.fault == f && in.left < 0 && f.is.Kind != iamapi.FaultClockSkew {
			return nil // it goes on for ever as it is
		}
	}
	s.faults = append(s.faults, &injected{endpoint: e, fault: f, left: n * max(1, f.is.Times)})
	return nil
}

// checkFaults returns an error that names each injected fault which has not
// happened once, and was not cleared. Servers of [Start] do so at the end of the
// test, and [Server.Close] writes it to Options.Logger.
func (s *Server) checkFaults() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, in := range s.faults {
		if in.hits == 0 {
			errs = append(errs, fmt.Errorf("iamtest: the fault %q was injected and never happened: no request came to the endpoint %q", in.fault, string(in.endpoint)))
		}
	}
	return errors.Join(errs...)
}

// ClearFaults removes the faults that have not happened yet, and corrects wrong
// clocks.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// PendingFaults returns how many injected faults have yet to happen completely. An
// unlimited fault counts as one.
func (s *Server) PendingFaults() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.faults)
}

// takeFault returns the fault that happens to this request of the endpoint, and
// takes it off what is still to happen; ok is false if none does. skew is by how
// much the clock is wrong, which comes on top of any fault.
func (s *Server) takeFault(e Endpoint) (f Fault, skew time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.faults {
		if in.endpoint != e {
			continue
		}
		if in.fault.is.Kind == iamapi.FaultClockSkew {
			skew += in.fault.is.Duration
			in.hits++
		} else if !ok {
			f, ok = in.fault, true
			in.hits++
			in.left--
		}
	}
	s.faults = slices.DeleteFunc(s.faults, func(in *injected) bool { return in.left == 0 })
	return f, skew, ok
}

// before is the fault's part that comes before the request is handled. It
// reports whether the request is handled at all.
func (e *exchange) before(f Fault) bool {
	switch f.is.Kind {
	case iamapi.FaultNonceChallenge:
		e.challenge = true
		return true
	case iamapi.FaultRepeatedPage:
		e.repeatPage = true
		return true
	case iamapi.FaultForeignOperation:
		e.foreignOp = true
		return true
	case iamapi.FaultSlow:
		return f.is.TakesEffect || e.wait(f.is.Duration)
	case iamapi.FaultLostRequest:
		e.abort = true
		return f.is.TakesEffect
	}
	return f.is.TakesEffect
}

// after is the fault's part that makes or changes the answer.
func (e *exchange) after(f Fault) {
	switch f.is.Kind {
	case iamapi.FaultLostAnswer:
		e.abort = true
	case iamapi.FaultSlow:
		if f.is.TakesEffect {
			e.wait(f.is.Duration)
		}
	case iamapi.FaultHTTPStatus:
		e.webError(f.is.Status, http.StatusText(f.is.Status)+"\n")
		if f.is.RetryAfter > 0 {
			e.header.Set("Retry-After", strconv.FormatInt(int64(f.is.RetryAfter/time.Second), 10))
		}
	case iamapi.FaultHTML:
		e.replace(f.is.Status, "text/html; charset=utf-8", htmlPage)
		e.web = true
	case iamapi.FaultRedirect:
		e.webError(f.is.Status, "")
		e.header.Set("Location", e.s.elsewhere+e.r.URL.RequestURI())
	case iamapi.FaultTruncated:
		e.truncate = true
	case iamapi.FaultOversized:
		e.body = append(e.body, bytes.Repeat([]byte(" "), oversize)...)
	case iamapi.FaultWrongContentType:
		e.header.Set("Content-Type", "text/html; charset=utf-8")
	case iamapi.FaultDuplicateMember:
		e.body = duplicateMember(e.body)
	case iamapi.FaultUnknownMembers:
		e.body = unknownMembers(e.body)
	case iamapi.FaultEmptyBody:
		e.body = nil
	case iamapi.FaultOperationNotFound:
		e.apiError(&iamapi.Status{Code: iamapi.NotFound, Message: "there is no such operation"})
	case iamapi.FaultEcho:
		e.echo(f.is.Status)
	}
}

const htmlPage = "<!DOCTYPE html>\n<html><head><title>Sign in to the network</title></head><body><h1>Please sign in</h1></body></html>\n"

// wait lets the client wait, and reports whether it did.
func (e *exchange) wait(d time.Duration) bool {
	timer := time.NewTimer(min(d, maxSlow))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.r.Context().Done():
		e.abort = true
		return false
	}
}

// replace puts another answer in the place of the handler's.
func (e *exchange) replace(status int, contentType, body string) {
	e.status, e.body = status, []byte(body)
	e.header = http.Header{"Content-Type": {contentType}}
}

// duplicateMember writes the first member of a JSON object twice.
func duplicateMember(body []byte) []byte {
	rest, ok := bytes.CutPrefix(body, []byte(`{"`))
	if !ok {
		return body
	}
	name, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return body
	}
	return fmt.Appendf(nil, `{"%s":"duplicate",%s`, name, body[1:])
}

// unknownMembers puts members before the first one of a JSON object.
func unknownMembers(body []byte) []byte {
	rest, ok := bytes.CutPrefix(body, []byte("{"))
	if !ok {
		return body
	}
	const members = `{"futureString":"x","futureObject":{"list":[1,null,{"deep":true}]},"futureNumber":12345678901234567890`
	if bytes.HasPrefix(rest, []byte("}")) {
		return append([]byte(members), rest...)
	}
	return append([]byte(members+","), rest...)
}
