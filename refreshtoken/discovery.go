package refreshtoken

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// How long endpoints that were found are used without asking again, and how long
// after asking again was in vain. Both are far below the notice with which a cloud
// moves an endpoint.
const (
	discoveryLifetime = time.Hour
	discoveryPause    = time.Minute
)

// maxDiscoveryPages bounds a list of endpoints; there are some 100, on one page.
const maxDiscoveryPages = 20

// Endpoints are the addresses that a Client needs, as host:port.
type Endpoints struct {
	// IAM is that of the IAM API, such as "iam.api.cloud.yandex.net:443".
	IAM string
	// Operation is that of operations, such as
	// "operation.api.cloud.yandex.net:443".
	Operation string
}

// A Discovery finds the [Endpoints] of a cloud by one address, that of its API
// (Yandex Cloud API, ApiEndpoint.List). It asks when it is first needed and again
// after an hour; where that fails, what it found before still holds. It is safe for
// concurrent use, and one serves any number of clients: see [WithDiscovery].
type Discovery struct {
	rest    *rest
	client  *Client  // makes the attempts
	address *url.URL // of the API

	asking chan struct{} // holds a value while one asks for all

	mu    sync.Mutex
	found Endpoints
	until time.Time // when to ask again
}

// NewDiscovery returns a Discovery that asks at an address such as
// "api.cloud.yandex.net" or "api.yandexcloud.kz", or a URL. That is https, or http
// to a loopback address, and so are then the endpoints found.
//
// The endpoints are there for everybody: hc needs no credentials, and should have
// none to send. A nil hc is http.DefaultClient. Of the options, [WithUserAgent],
// [WithTraceID], [WithRetry] and [WithLogger] apply. A mistake in an option or in
// the address is an [*ArgumentError] of [Discovery.Endpoints].
func NewDiscovery(hc *http.Client, address string, opts ...Option) *Discovery {
	cfg := newConfig(opts)
	api, err := parseAPIAddress(address)
	if err == nil {
		err = cfg.onlyDiscovery()
	}
	if !cfg.userAgent.given {
		cfg.userAgent.value = defaultUserAgent
	}
	if err == nil {
		err = checkHeader("WithUserAgent", cfg.userAgent.value)
	}
	t := newREST(hc, nil, nil, cfg.userAgent.value)
	return &Discovery{rest: t, client: newClient(t, cfg, err), address: api, asking: make(chan struct{}, 1)}
}

func parseAPIAddress(address string) (*url.URL, error) {
	if address != "" && !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := wire.CheckURL(address)
	if err != nil {
		return nil, &ArgumentError{"NewDiscovery", "the address " + err.Error() + ": want one such as api.cloud.yandex.net"}
	}
	if u.RawQuery != "" || u.ForceQuery {
		return nil, &ArgumentError{"NewDiscovery", "the address has a query: want one such as api.cloud.yandex.net"}
	}
	return u, nil
}

// onlyDiscovery rejects options that a Discovery would silently ignore.
func (c *config) onlyDiscovery() error {
	if c.endpoint.given || c.operationEndpoint.given || c.discovery != nil {
		return &ArgumentError{"NewDiscovery", "takes no options for endpoints: its own address is an argument"}
	}
	return nil
}

// Endpoints returns the addresses, from memory where they are not older than an
// hour.
//
// The error is an [*ArgumentError], an [*APIError], a [*ResponseError] (above all
// where an endpoint is not in the list) or a [*TransportError], with the Method
// "Endpoints".
func (d *Discovery) Endpoints(ctx context.Context) (Endpoints, error) {
	if found, fresh := d.known(); fresh {
		return found, nil
	}
	select {
	case d.asking <- struct{}{}:
		defer func() { <-d.asking }()
	case <-ctx.Done():
		return Endpoints{}, &TransportError{Method: methodEndpoints, Err: retry.Ended(ctx)}
	}
	found, fresh := d.known() // somebody else may have asked meanwhile
	if fresh {
		return found, nil
	}
	asked, err := d.ask(ctx)
	switch {
	case err == nil:
		d.keep(asked, discoveryLifetime)
		return asked, nil
	case found != (Endpoints{}) && ctx.Err() == nil:
		d.client.logger.DebugContext(ctx, "refreshtoken: the endpoints could not be looked up again, and stay what they were", "error", err)
		d.keep(found, discoveryPause)
		return found, nil
	}
	return Endpoints{}, err
}

func (d *Discovery) known() (found Endpoints, fresh bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.found, time.Now().Before(d.until)
}

func (d *Discovery) keep(found Endpoints, lifetime time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found, d.until = found, time.Now().Add(lifetime)
}

// ask is GET /endpoints, page by page.
func (d *Discovery) ask(ctx context.Context) (Endpoints, error) {
	var found Endpoints
	token, trace := "", Trace{}
	for range maxDiscoveryPages {
		page, err := call(ctx, d.client, methodEndpoints, cleanerOf(Secret{}), func(ctx context.Context, call Call) (*endpointPage, error) {
			u := d.address.JoinPath("endpoints")
			if token != "" {
				u.RawQuery = url.Values{"pageToken": {token}}.Encode()
			}
			page, trace, err := exchange(ctx, d.rest, call, http.MethodGet, u, nil, parseEndpoints)
			if err != nil {
				return nil, err
			}
			page.Trace = trace
			return page, nil
		})
		if err != nil {
			return Endpoints{}, err
		}
		trace = page.Trace
		for id, to := range map[string]*string{"iam": &found.IAM, "operation": &found.Operation} {
			if *to == "" {
				*to = page.addresses[id]
			}
		}
		if token = page.next; token == "" || found.IAM != "" && found.Operation != "" {
			break
		}
	}
	for _, ep := range []struct{ id, address string }{{"iam", found.IAM}, {"operation", found.Operation}} {
		if _, err := d.url(ep.address); err != nil {
			return Endpoints{}, &ResponseError{Method: methodEndpoints, HTTPStatus: http.StatusOK, Err: err, Trace: trace,
				Reason: fmt.Sprintf("the endpoint %q %v: name it with an option", ep.id, err)}
		}
	}
	return found, nil
}

// url is where an address that was found leads to: with TLS, unless the API was
// asked without.
func (d *Discovery) url(address string) (*url.URL, error) {
	if address == "" {
		return nil, errors.New("is not in the list of the API")
	}
	u, err := wire.CheckURL(d.address.Scheme + "://" + address)
	if err != nil {
		return nil, err
	}
	if number, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || number == 0 || u.Host != address {
		return nil, errors.New("has an address that is not host:port")
	}
	return u, nil
}

// An endpointPage is ListApiEndpointsResponse.
type endpointPage struct {
	addresses map[string]string // by ID
	next      string
	Trace
}

func parseEndpoints(data []byte) (*endpointPage, error) {
	o, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	var r reader
	page := &endpointPage{addresses: map[string]string{}, next: r.text(o, "nextPageToken")}
	for i, v := range r.list(o, "endpoints") {
		ep, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("endpoints[%d]: it is not an object", i)
		}
		page.addresses[r.text(ep, "id")] = r.text(ep, "address")
	}
	return page, r.err
}
