package grpctransport

import (
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ycauth/ycauth-go/internal/wire"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// The addresses of Yandex Cloud in Russia. Other regions have their own, such as
// iam.api.yandexcloud.kz:443.
const (
	DefaultEndpoint          = "iam.api.cloud.yandex.net:443"
	DefaultOperationEndpoint = "operation.api.cloud.yandex.net:443"
)

const defaultUserAgent = "ycauth-go"

// DialOptions configures [Dial]. The zero value connects to Yandex Cloud in
// Russia.
type DialOptions struct {
	// Endpoint is the address of the IAM API, as host:port.
	// Optional. Default: DefaultEndpoint.
	Endpoint string
	// OperationEndpoint is the address for polling operations, as host:port.
	// Optional. Default: DefaultOperationEndpoint, or Endpoint if that is set, so that
	// the IAM token is not sent to another cloud.
	OperationEndpoint string
	// Plaintext disables TLS. It is rejected unless both endpoints are loopback
	// addresses.
	// Optional. Default: false.
	Plaintext bool
	// TLS is the configuration of the client, for example with other roots. It is
	// cloned. Optional. Default: that of crypto/tls.
	TLS *tls.Config
	// UserAgent is sent before that of grpc-go, such as "mycli/1.2.0".
	// Optional. Default: "ycauth-go".
	UserAgent string
	// Options are further options of the connections, such as interceptors. Transport
	// security options have no effect. grpc.WithMaxHeaderListSize replaces the limit of
	// 256 KiB for the metadata of a response, which includes the error and its details.
	// Optional.
	Options []grpc.DialOption
}

// A Conn combines the connections to the IAM API and to operations, for [NewClient]. It
// implements grpc.ClientConnInterface.
type Conn struct {
	grpc.ClientConnInterface
	conns []*grpc.ClientConn
}

// Dial creates the connections of a Client, each authenticated by src, as
// [Authenticate] describes. It does not wait for the network, because the first call
// connects. Close closes them.
//
// The error is an *refreshtoken.ArgumentError, or that of grpc.NewClient.
func Dial(src TokenSource, opts DialOptions) (*Conn, error) {
	if src == nil {
		return nil, &refreshtoken.ArgumentError{Field: "TokenSource", Reason: "is nil: pass an *oauth.TokenSource, for example"}
	}
	if err := opts.complete(); err != nil {
		return nil, err
	}
	iam, err := opts.connect(src, opts.Endpoint)
	if err != nil {
		return nil, err
	}
	if opts.OperationEndpoint == opts.Endpoint {
		return &Conn{iam, []*grpc.ClientConn{iam}}, nil
	}
	operation, err := opts.connect(src, opts.OperationEndpoint)
	if err != nil {
		return nil, errors.Join(err, iam.Close())
	}
	return &Conn{Join(iam, operation), []*grpc.ClientConn{iam, operation}}, nil
}

// Close closes the connections. Calls in progress fail.
func (c *Conn) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// complete fills in defaults and rejects mistakes.
func (o *DialOptions) complete() error {
	if o.OperationEndpoint == "" {
		o.OperationEndpoint = DefaultOperationEndpoint
		if o.Endpoint != "" {
			o.OperationEndpoint = o.Endpoint
		}
	}
	if o.Endpoint == "" {
		o.Endpoint = DefaultEndpoint
	}
	if o.UserAgent == "" {
		o.UserAgent = defaultUserAgent
	}
	if strings.ContainsFunc(o.UserAgent, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return &refreshtoken.ArgumentError{Field: "DialOptions.UserAgent", Reason: "has a character that is not allowed in metadata: use printable ASCII"}
	}
	if err := o.checkAddress("DialOptions.Endpoint", o.Endpoint); err != nil {
		return err
	}
	return o.checkAddress("DialOptions.OperationEndpoint", o.OperationEndpoint)
}

func (o *DialOptions) checkAddress(field, address string) error {
	host, port, err := net.SplitHostPort(address)
	if number, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || number == 0 || !isHost(host) {
		return &refreshtoken.ArgumentError{Field: field, Reason: "is not host:port: want an address such as " + DefaultEndpoint}
	}
	if o.Plaintext && !wire.IsLoopback(host) {
		return &refreshtoken.ArgumentError{Field: field, Reason: "is not a loopback address, and only TLS keeps tokens secret: leave Plaintext false"}
	}
	return nil
}

// isHost keeps out what grpc-go would take for more than a host, such as
// "unix:///run/iam.sock".
func isHost(host string) bool {
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return r <= 0x20 || r >= 0x7f || strings.ContainsRune("/\\@?#", r)
	})
}

func (o *DialOptions) connect(src TokenSource, address string) (*grpc.ClientConn, error) {
	security := insecure.NewCredentials()
	if !o.Plaintext {
		security = credentials.NewTLS(o.TLS.Clone()) // a nil Config clones to nil
	}
	// The last one wins: the caller may choose another size, and nothing of what follows.
	options := append([]grpc.DialOption{grpc.WithMaxHeaderListSize(maxMetadata)}, o.Options...)
	options = append(options, authenticate(src, !o.Plaintext)...)
	options = append(options,
		grpc.WithTransportCredentials(security),
		grpc.WithUserAgent(o.UserAgent),
		grpc.WithConnectParams(reconnect),
	)
	return grpc.NewClient("dns:///"+address, options...)
}

// maxMetadata is in bytes. Details of maxDetail, which base64 makes a third larger, take less
// than half of it. The default of grpc-go, 16 MiB, lets one response take a GiB of memory.
const maxMetadata = 256 << 10

// reconnect has grpc-go try a broken connection again sooner than after its
// default of a second: until then, all attempts of a call would fail at once.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second},
	MinConnectTimeout: 10 * time.Second,
}
