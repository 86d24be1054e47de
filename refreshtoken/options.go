package refreshtoken

import (
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// The addresses of Yandex Cloud in Russia. Other regions have their own, such as
// https://iam.api.yandexcloud.kz.
const (
	DefaultEndpoint          = "https://iam.api.cloud.yandex.net"
	DefaultOperationEndpoint = "https://operation.api.cloud.yandex.net"
)

const defaultUserAgent = "ycauth-go"

// An Option configures a [Client]. If an option is invalid, every call of the Client
// returns an [*ArgumentError].
type Option func(*config)

// config is what the options say. An empty string means that an option was not
// given.
type config struct {
	endpoint, operationEndpoint setting
	userAgent                   setting
	traceID                     setting
	retry                       RetryPolicy
	polling                     Polling
	logger                      *slog.Logger
}

// A setting tells an option that was given as "" from one that was not given.
type setting struct {
	value string
	given bool
}

// WithEndpoint sets the address of the IAM API, and also that of operations unless
// [WithOperationEndpoint] is given, so that the IAM token is not sent to another
// cloud. The address is https, or http to a loopback
// address. For [NewClient] only. Default: [DefaultEndpoint].
func WithEndpoint(address string) Option {
	return func(c *config) { c.endpoint = setting{address, true} }
}

// WithOperationEndpoint sets the address that [RevokeOperation.Wait] polls. The rules of
// [WithEndpoint] apply. For [NewClient] only.
// Default: [DefaultOperationEndpoint].
func WithOperationEndpoint(address string) Option {
	return func(c *config) { c.operationEndpoint = setting{address, true} }
}

// WithUserAgent sets the User-Agent header, such as "mycli/1.2.0". For
// [NewClient] only. Default: "ycauth-go".
func WithUserAgent(userAgent string) Option {
	return func(c *config) { c.userAgent = setting{userAgent, true} }
}

// WithTraceID sets the x-client-trace-id of every request, by which logs and the
// provider's support can find them; "" sends none. Default: a random
// UUID for each Client.
func WithTraceID(id string) Option {
	return func(c *config) { c.traceID = setting{id, true} }
}

// RetryPolicy bounds the attempts of one request.
type RetryPolicy struct {
	// Attempts is the maximum number of attempts, including the first.
	// Optional. Default: 4. 1 means no retry.
	Attempts int
	// Initial is the wait before the second attempt, before jitter. Later waits
	// grow by half each time.
	// Optional. Default: 250 ms. At most 24 hours.
	Initial time.Duration
	// Max is the longest wait, unless the server asks for a longer one.
	// Optional. Default: 5 s, or Initial if that is longer. At most 24 hours.
	Max time.Duration
	// MaxRetryAfter is the longest wait that the server may ask for. If it
	// asks for more, the call returns the server's error with its RetryAfter.
	// Optional. Default: 30 s.
	MaxRetryAfter time.Duration
}

// WithRetry sets how requests are retried.
func WithRetry(p RetryPolicy) Option { return func(c *config) { c.retry = p } }

// Polling sets how often [RevokeOperation.Wait] requests the state of an operation. Only
// the ctx of Wait bounds the total time.
type Polling struct {
	// Initial is the wait before the first request, before jitter. Later waits
	// grow by half each time.
	// Optional. Default: 500 ms. At most 24 hours.
	Initial time.Duration
	// Max is the longest wait, including the first one and jitter.
	// Optional. Default: 5 s, or Initial if that is longer. At most 24 hours.
	Max time.Duration
}

// WithPolling sets how often [RevokeOperation.Wait] polls.
func WithPolling(p Polling) Option { return func(c *config) { c.polling = p } }

// WithLogger logs retries to l, at debug level and without
// credentials. Default: retries are not logged.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }

func newConfig(opts []Option) *config {
	c := &config{logger: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if !c.traceID.given {
		c.traceID.value = newUUID()
	}
	if c.polling.Initial <= 0 {
		c.polling.Initial = 500 * time.Millisecond
	}
	if c.polling.Max <= 0 {
		c.polling.Max = max(5*time.Second, c.polling.Initial)
	}
	c.polling.Max = min(c.polling.Max, retry.Longest)
	c.polling.Initial = min(c.polling.Initial, c.polling.Max)
	return c
}

func (c *config) retryPolicy() retry.Policy {
	return retry.Policy{
		Attempts:  c.retry.Attempts,
		Initial:   c.retry.Initial,
		Max:       c.retry.Max,
		MaxServer: c.retry.MaxRetryAfter,
	}
}

// restSettings are the endpoints and the user agent, with their defaults.
func (c *config) restSettings() (iam, operation *url.URL, userAgent string, err error) {
	c.operationEndpoint = c.operationEndpoint.or(c.endpoint.or(setting{DefaultOperationEndpoint, true}))
	userAgent = c.userAgent.or(setting{defaultUserAgent, true}).value
	if iam, err = parseEndpoint("WithEndpoint", c.endpoint.or(setting{DefaultEndpoint, true}).value); err != nil {
		return nil, nil, "", err
	}
	if operation, err = parseEndpoint("WithOperationEndpoint", c.operationEndpoint.value); err != nil {
		return nil, nil, "", err
	}
	return iam, operation, userAgent, checkHeader("WithUserAgent", userAgent)
}

func (s setting) or(other setting) setting {
	if s.given {
		return s
	}
	return other
}

func parseEndpoint(option, address string) (*url.URL, error) {
	u, err := wire.CheckURL(address)
	if err != nil {
		return nil, &ArgumentError{option, err.Error() + ": want an address such as " + DefaultEndpoint}
	}
	if u.RawQuery != "" || u.ForceQuery {
		return nil, &ArgumentError{option, "has a query: want an address such as " + DefaultEndpoint}
	}
	return u, nil
}

// checkHeader rejects what a header field cannot hold (RFC 9110 §5.5); letters
// outside ASCII are obsolete there.
func checkHeader(option, s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return &ArgumentError{option, "has a character that is not allowed in a header: use printable ASCII"}
	}
	return nil
}

// onlyREST rejects options that another transport would silently ignore.
func (c *config) onlyREST() error {
	for _, o := range []struct {
		name string
		set  setting
	}{
		{"WithEndpoint", c.endpoint}, {"WithOperationEndpoint", c.operationEndpoint}, {"WithUserAgent", c.userAgent},
	} {
		if o.set.given {
			return &ArgumentError{o.name, "is an option of NewClient only: configure other transports when you create them"}
		}
	}
	return nil
}
