package grpctransport

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// TokenSource authenticates calls. *oauth.TokenSource implements it, as does any other
// credentials.PerRPCCredentials.
type TokenSource interface {
	// GetRequestMetadata returns the authorization metadata of a call.
	GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error)
}

// An invalidator is a TokenSource that replaces a token that a server rejected.
// *oauth.TokenSource is one, and bounds how often it does that.
type invalidator interface{ Invalidate(rejected *oauth2.Token) }

// Authenticate returns dial options that authenticate all calls of a connection, to any
// service, with src. [Dial] includes them.
//
// If the server rejects a token (the status Unauthenticated) and src has a method
// Invalidate(*oauth2.Token), as *oauth.TokenSource has, Authenticate calls it. If src then
// has another token, the call is retried once. A stream is reopened only if the
// program has received no message and no header metadata from it. If the program can
// send several messages on the stream, it must not have sent any.
//
// Do not use grpc.WithPerRPCCredentials with the same src as well, because it
// sends a revoked token until it expires.
//
// A call that already has authorization metadata keeps it, and is not retried, unless that
// metadata is the current one of src, as with
// yccredentials. The connection must have transport security.
//
// If src fails, the error of a call wraps that of src, and has the status
// Unauthenticated unless the error of src has one. The codes that gRFC A54 forbids for
// credentials (InvalidArgument, NotFound, AlreadyExists, FailedPrecondition,
// Aborted, OutOfRange and DataLoss) become Unauthenticated as well.
func Authenticate(src TokenSource) []grpc.DialOption { return authenticate(src, true) }

func authenticate(src TokenSource, secure bool) []grpc.DialOption {
	a := &authenticator{src: src, secure: secure}
	if s, ok := src.(invalidator); ok {
		a.invalidate = s.Invalidate
	}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(a.unary), grpc.WithChainStreamInterceptor(a.stream)}
}

type authenticator struct {
	src        TokenSource
	invalidate func(*oauth2.Token) // nil where src cannot
	secure     bool                // false for connections to this machine only
}

const authorization = "authorization"

func (a *authenticator) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	at, with := a.begin(ctx, opts)
	err := invoke(ctx, method, req, reply, conn, with...)
	if err == nil {
		return nil
	}
	if !a.rejected(at, err) {
		return err
	}
	ctx, err = a.next(ctx, at, err)
	if err != nil {
		return err
	}
	forget(opts)
	_, with = a.begin(ctx, opts)
	return invoke(ctx, method, req, reply, conn, with...)
}

// forget empties what the options of a call have collected of the first attempt. grpc-go
// leaves it there if the second attempt does not reach a server.
func forget(opts []grpc.CallOption) {
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = nil
		case grpc.TrailerCallOption:
			*o.TrailerAddr = nil
		}
	}
}

// begin returns what one attempt of a call needs.
func (a *authenticator) begin(ctx context.Context, opts []grpc.CallOption) (*attempt, []grpc.CallOption) {
	at := &attempt{authenticator: a}
	md, _ := metadata.FromOutgoingContext(ctx)
	if carried := md.Get(authorization); len(carried) > 0 {
		if a.invalidate == nil || len(carried) > 1 {
			return at, opts
		}
		if own, err := a.src.GetRequestMetadata(ctx); err == nil && own[authorization] == carried[0] {
			at.header, at.carried = carried[0], true
		}
		return at, opts
	}
	// The caller's options come last and win.
	return at, append([]grpc.CallOption{grpc.PerRPCCredentials(at)}, opts...)
}

// rejected reports whether err says that the server rejected the token of an attempt,
// and tells src. It does so once, because a stream returns its error as often as it is
// read.
func (a *authenticator) rejected(at *attempt, err error) bool {
	scheme, token, sent := strings.Cut(at.sent(), " ")
	if a.invalidate == nil || !sent || status.Code(err) != codes.Unauthenticated || at.told.Swap(true) {
		return false
	}
	a.invalidate(&oauth2.Token{AccessToken: token, TokenType: scheme})
	return true
}

// next returns the ctx of another attempt, after the one that failed with err. The
// error is err where src has no other token.
func (a *authenticator) next(ctx context.Context, at *attempt, err error) (context.Context, error) {
	md, srcErr := a.src.GetRequestMetadata(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, err
	case srcErr != nil:
		return nil, failed(ctx, srcErr) // why there is no other token says more than err
	case md[authorization] == at.sent():
		return nil, err
	}
	if at.carried {
		out, _ := metadata.FromOutgoingContext(ctx)
		out = out.Copy()
		out.Set(authorization, md[authorization])
		ctx = metadata.NewOutgoingContext(ctx, out)
	}
	return ctx, nil
}

// An attempt is the credentials of one attempt of a call, and remembers what was
// sent: by the time of a rejection src may have moved on.
type attempt struct {
	*authenticator
	carried bool        // the call had the authorization already
	told    atomic.Bool // src knows that it was rejected

	mu     sync.Mutex // grpc-go may still ask when the call has returned
	header string     // "" if nothing was sent
}

var _ credentials.PerRPCCredentials = (*attempt)(nil)

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (at *attempt) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	md, err := at.src.GetRequestMetadata(ctx, uri...)
	if err != nil {
		return nil, failed(ctx, err)
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	at.header = md[authorization]
	return md, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (at *attempt) RequireTransportSecurity() bool { return at.secure }

func (at *attempt) sent() string {
	at.mu.Lock()
	defer at.mu.Unlock()
	return at.header
}

// failed tells the exchange that a call belongs to why it has no credentials, and
// returns an error that grpc-go hands on as it is, since it has a status.
func failed(ctx context.Context, err error) error {
	if watching, ok := ctx.Value(sourceErrorKey{}).(*sourceError); ok {
		watching.set(err)
	}
	if st, ok := status.FromError(err); ok && !restricted(st.Code()) {
		return err
	}
	return &credentialsError{err}
}

// restricted are the codes of credentials that grpc-go replaces, and the error with
// them (gRFC A54, "Restrict Control Plane Status Codes"). OK is no failure.
func restricted(code codes.Code) bool {
	switch code {
	case codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition,
		codes.Aborted, codes.OutOfRange, codes.DataLoss:
		return true
	}
	return false
}

// A credentialsError says that there is no token for a call.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "grpctransport: no access token: " + e.err.Error() }

func (e *credentialsError) Unwrap() error { return e.err }

// GRPCStatus is what grpc-go asks for the status of an error.
func (e *credentialsError) GRPCStatus() *status.Status {
	return status.New(codes.Unauthenticated, e.Error())
}

type sourceErrorKey struct{}

// sourceError is how the token source of one call failed.
type sourceError struct {
	mu  sync.Mutex
	err error
}

func (s *sourceError) watch(ctx context.Context) context.Context {
	return context.WithValue(ctx, sourceErrorKey{}, s)
}

func (s *sourceError) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sourceError) get() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
