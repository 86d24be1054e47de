package grpctransport

import (
	"context"
	"sync"

	"google.golang.org/grpc/credentials"
)

// TokenSource authenticates calls: *oauth.TokenSource does, as does any other
// credentials.PerRPCCredentials.
type TokenSource interface {
	// GetRequestMetadata returns the authorization metadata of a call.
	GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error)
}

// Credentials returns src for grpc.WithPerRPCCredentials, so that the Client of a
// connection that was not opened by [Dial] has the errors of src as they are. It
// requires transport security.
func Credentials(src TokenSource) credentials.PerRPCCredentials {
	return &perRPC{src: src, secure: true}
}

// perRPC tells the exchange that a call belongs to why it has no credentials: what
// grpc-go returns is a text of it.
type perRPC struct {
	src    TokenSource
	secure bool // false towards this machine only
}

func (p *perRPC) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	md, err := p.src.GetRequestMetadata(ctx, uri...)
	if watching, ok := ctx.Value(credentialErrorKey{}).(*credentialError); ok {
		watching.set(err)
	}
	return md, err
}

func (p *perRPC) RequireTransportSecurity() bool { return p.secure }

type credentialErrorKey struct{}

// credentialError is how the credentials of one call failed. grpc-go may still
// ask them when the call has returned.
type credentialError struct {
	mu  sync.Mutex
	err error
}

func (c *credentialError) watch(ctx context.Context) context.Context {
	return context.WithValue(ctx, credentialErrorKey{}, c)
}

func (c *credentialError) set(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *credentialError) get() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
