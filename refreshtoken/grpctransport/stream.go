package grpctransport

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

func (a *authenticator) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s := &clientStream{authenticator: a, several: desc.ClientStreams, open: func(ctx context.Context) (grpc.ClientStream, *attempt, error) {
		at, with := a.begin(ctx, opts)
		inner, err := open(ctx, desc, conn, method, with...)
		return inner, at, err
	}}
	var err error
	s.inner, s.at, err = s.open(ctx)
	if err != nil {
		return nil, err
	}
	s.ctx = ctx
	return s, nil
}

// A clientStream is a grpc.ClientStream that is opened once more where the server
// rejects its token before anything else happened.
type clientStream struct {
	*authenticator
	several bool // messages can be sent
	open    func(context.Context) (grpc.ClientStream, *attempt, error)
	ctx     context.Context // of the call

	// One goroutine may send while another one receives.
	mu      sync.Mutex
	inner   grpc.ClientStream
	at      *attempt
	message any  // that was sent, if one is all there can be
	sent    bool // a message
	closed  bool // for sending
	settled bool // it stays with inner
}

func (s *clientStream) current() grpc.ClientStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inner
}

// Header implements grpc.ClientStream.
func (s *clientStream) Header() (metadata.MD, error) {
	md, err := s.current().Header()
	if len(md) > 0 {
		s.settle() // the caller knows this stream
	}
	return md, err
}

// Trailer implements grpc.ClientStream.
func (s *clientStream) Trailer() metadata.MD { return s.current().Trailer() }

// CloseSend implements grpc.ClientStream.
func (s *clientStream) CloseSend() error {
	s.mu.Lock()
	s.closed = true
	inner := s.inner
	s.mu.Unlock()
	return inner.CloseSend()
}

// Context implements grpc.ClientStream.
func (s *clientStream) Context() context.Context { return s.current().Context() }

// SendMsg implements grpc.ClientStream.
func (s *clientStream) SendMsg(m any) error {
	s.mu.Lock()
	s.sent = true
	if !s.several {
		s.message = m // which must not be modified from here on: see grpc.ClientStream
	}
	inner := s.inner
	s.mu.Unlock()
	return inner.SendMsg(m)
}

// RecvMsg implements grpc.ClientStream.
func (s *clientStream) RecvMsg(m any) error {
	err := s.current().RecvMsg(m)
	if err == nil {
		s.settle()
		return nil
	}
	if err = s.again(err); err != nil {
		return err
	}
	return s.current().RecvMsg(m)
}

// stays reports whether the stream cannot be opened once more.
func (s *clientStream) stays() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settled || s.several && s.sent
}

func (s *clientStream) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled, s.message = true, nil
}

// again opens the stream once more, with all that was sent. The error is err where
// that would not help.
func (s *clientStream) again(err error) error {
	s.mu.Lock()
	at := s.at // which nothing but again changes
	s.mu.Unlock()
	if !s.rejected(at, err) || s.stays() {
		return err
	}
	// The source can take its time, so the other methods must not wait for it.
	ctx, sourceErr := s.next(s.ctx, at, err)
	if sourceErr != nil {
		return sourceErr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled || s.several && s.sent { // meanwhile
		return err
	}
	inner, at, err := s.open(ctx)
	if err != nil {
		return err
	}
	s.inner, s.at, s.settled = inner, at, true
	if s.sent {
		if err := inner.SendMsg(s.message); err != nil {
			return err
		}
	}
	if s.closed {
		return inner.CloseSend()
	}
	return nil
}
