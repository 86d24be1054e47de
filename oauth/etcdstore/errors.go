package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/seal"
)

var (
	// ErrUnavailable means that the cluster cannot be reached, has no leader or no
	// room left, or did not respond in time. Such an [*Error] is Temporary.
	ErrUnavailable = errors.New("etcd is not available")

	// ErrKeyVersion means that a session was sealed with a key of a version that Keys
	// does not have. Such an error matches [oauth.ErrSessionFormat], too.
	ErrKeyVersion = seal.ErrKeyVersion

	// ErrSealKey means that the session was sealed with another key, or for another
	// key or prefix, or was altered. Such an error matches [oauth.ErrSessionFormat], too.
	ErrSealKey = seal.ErrSealKey

	// ErrInTheClear means that a session is stored in the clear, and Options.InTheClear
	// is not set. Such an error matches [oauth.ErrSessionFormat], too.
	ErrInTheClear = seal.ErrInTheClear

	// ErrKey means that a text is not a key for a session.
	ErrKey = errors.New("not a key for a session")
)

// An Error says what failed, and what helps. It holds no secret. What it matches:
// one of this package's Err variables, [oauth.ErrSessionFormat] if a session cannot be
// read, [oauth.ErrLeaseLost], the error of a ctx, or what the client of etcd returned.
type Error struct {
	Op     string // what failed, such as "take the lease"
	Prefix string // of the set
	Key    string // of the session; "" if it is about the set
	Kind   error  // one of this package's Err variables; nil if it is none of these
	Err    error  // the cause; may be nil

	remedy string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("etcdstore: ")
	if e.Op != "" {
		b.WriteString("cannot " + e.Op + ": ")
	}
	fmt.Fprintf(&b, "prefix %q", e.Prefix)
	if e.Key != "" {
		fmt.Fprintf(&b, ", key %q", e.Key)
	}
	if e.Kind != nil && !errors.Is(e.Err, e.Kind) {
		b.WriteString(": " + e.Kind.Error())
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.remedy != "" {
		b.WriteString(" (" + e.remedy + ")")
	}
	return b.String()
}

// Unwrap makes the error match its kind and its cause.
func (e *Error) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// Temporary reports whether the same call can succeed later, without anybody having
// done something about it.
func (e *Error) Temporary() bool { return errors.Is(e.Kind, ErrUnavailable) }

const remedyUnreadable = "it was not used and not overwritten"

// unreadable is about something stored that is not a session that can be used.
func (s *Set) unreadable(op, key string, err error) error {
	remedy := remedyUnreadable + ": if a newer release wrote it, update this program; otherwise call Set.Delete and log in again"
	var kind error
	switch {
	case errors.Is(err, ErrKeyVersion):
		kind, remedy = ErrKeyVersion, remedyUnreadable+": give Options.Keys that version, too"
	case errors.Is(err, ErrSealKey):
		kind, remedy = ErrSealKey, remedyUnreadable+": bring back the key that it was sealed with, or, if the sessions were moved to another prefix, set Options.SealedAs; "+
			"if the key is lost, or the session was altered, call Set.Delete and log in again"
	case errors.Is(err, ErrInTheClear):
		kind, remedy = ErrInTheClear, remedyUnreadable+": set Options.InTheClear until Set.Reseal has sealed all sessions"
	}
	if !errors.Is(err, oauth.ErrSessionFormat) {
		err = fmt.Errorf("%w (%w)", err, oauth.ErrSessionFormat)
	}
	return &Error{Op: op, Prefix: s.prefix, Key: key, Kind: kind, Err: err, remedy: remedy}
}

// ended is about a ctx that ended.
func (s *Set) ended(ctx context.Context, op, key string) *Error {
	return &Error{Op: op, Prefix: s.prefix, Key: key, Err: retry.Ended(ctx)}
}

func (s *Set) lost(op, key string) error {
	return &Error{Op: op, Prefix: s.prefix, Key: key, Err: oauth.ErrLeaseLost}
}

// failed is about a request to etcd. ctx is the caller's.
func (s *Set) failed(ctx context.Context, op, key string, err error) *Error {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSaveTimeout) {
		return s.ended(ctx, op, key)
	}
	e := &Error{Op: op, Prefix: s.prefix, Key: key, Err: err}
	code := codeOf(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded) || code == codes.DeadlineExceeded: // of one attempt, not of ctx
		e.Kind, e.Err = ErrUnavailable, fmt.Errorf("no response within %v", s.timeout)
	case errors.Is(err, rpctypes.ErrNoSpace):
		e.Kind, e.remedy = ErrUnavailable, "compact and defragment etcd, raise --quota-backend-bytes, then disarm the alarm"
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		e.remedy = "raise etcd's --max-request-bytes"
	case code == codes.ResourceExhausted && strings.Contains(err.Error(), "message larger than max"): // by the client
		e.remedy = "raise MaxCallSendMsgSize of the client, and etcd's --max-request-bytes"
	case errors.Is(err, rpctypes.ErrAuthOldRevision):
		e.Kind = ErrUnavailable
	case errors.Is(err, rpctypes.ErrLeaseNotFound): // which is granted anew
		e.Kind = ErrUnavailable
	case code == codes.PermissionDenied:
		e.remedy = "grant the user of etcd a role with permission to read and write all keys with the prefix"
	case code == codes.Unauthenticated, errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrUserEmpty):
		e.remedy = "see the user and the password of the client"
	case code == codes.Canceled && strings.Contains(err.Error(), "connection is closing"):
		e.remedy = "the client of etcd was closed"
	case code == codes.Canceled, code == codes.Unavailable, code == codes.ResourceExhausted, code == codes.Aborted, code == codes.Internal:
		e.Kind = ErrUnavailable
	}
	return e
}

// codeOf is the gRPC code of an error of the client; codes.Unknown if it has none.
func codeOf(err error) codes.Code {
	var server rpctypes.EtcdError
	if errors.As(err, &server) {
		return server.Code()
	}
	return status.Code(err)
}
