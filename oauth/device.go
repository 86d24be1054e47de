package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// A DeviceCode is what a user needs to log in on another device (RFC 8628 §3.2).
type DeviceCode struct {
	// UserCode is what the user enters at VerificationURI. It has only printable ASCII
	// characters, as have the URIs.
	UserCode        string
	VerificationURI string

	// VerificationURIComplete has the code in it, for instance for a QR code. Show
	// UserCode as well, so that the user can compare it (§3.3.1). "" if the server has none.
	VerificationURIComplete string

	// Expiry is when the login ends, by this machine's clock. Zero if the server does not
	// say.
	Expiry time.Time
}

const (
	// "If no value is provided, clients MUST use 5 as the default", and "the interval MUST
	// be increased by 5 seconds" for slow_down (§3.2, §3.5).
	defaultInterval = 5 * time.Second
	slowDown        = 5 * time.Second

	// maxInterval bounds the server's interval, which may be longer than the code lives, and
	// what is added after failures of the network. A server that wants more says slow_down.
	maxInterval = time.Minute

	// lastPoll is how long before the code expires the tokens are requested once more, so
	// that a user who logged in late, or during a long wait, gets them. It is at most a
	// fifth of the life of the code.
	lastPoll = 5 * time.Second
)

// A deviceLogin is the response of the device authorization endpoint.
type deviceLogin struct {
	DeviceCode
	deviceCode Secret
	interval   time.Duration
	life       time.Duration // 0 if the server does not say
}

// loginDevice is the device authorization grant.
func (c *Client) loginDevice(ctx context.Context, opts LoginOptions, replaced Session) (Session, error) {
	var d deviceLogin
	parse := func(body []byte) (err error) {
		d, err = parseDevice(body)
		return err
	}
	_, err := c.call(ctx, endpoint{url: c.deviceAuthURL, field: "Provider.DeviceAuthURL", parse: parse}, c.accessRequest(opts))
	if err == nil {
		begun := time.Now()
		if d.life > 0 {
			d.Expiry = c.now().Add(d.life)
		}
		if err = showCode(ctx, d.DeviceCode, opts); err == nil {
			return c.poll(ctx, d, begun, replaced)
		}
	}
	return Session{}, fmt.Errorf("oauth: the login was not begun: %w", err)
}

func showCode(ctx context.Context, code DeviceCode, opts LoginOptions) error {
	if opts.ShowCode != nil {
		return opts.ShowCode(ctx, code)
	}
	fmt.Fprintf(opts.Out, "Open this address in a browser on any device and enter the code %s:\n\n%s\n\n", code.UserCode, code.VerificationURI)
	if code.VerificationURIComplete != "" {
		fmt.Fprintf(opts.Out, "Or open this address and compare the code:\n\n%s\n\n", code.VerificationURIComplete)
	}
	return nil
}

// poll asks for the tokens until the user has logged in (§3.4, §3.5).
func (c *Client) poll(ctx context.Context, d deviceLogin, begun time.Time, replaced Session) (Session, error) {
	interval, wait := d.interval, d.interval
	lost := false // a response: it can have had the tokens
	for {
		if left := d.life - time.Since(begun); d.life > 0 && left <= wait {
			if wait = left - min(lastPoll, d.life/5); wait <= 0 { // it was in time for the last one
				if err := c.pause(ctx, left); err != nil {
					return Session{}, err
				}
				return Session{}, &AuthorizationError{Code: "expired_token", Description: fmt.Sprintf("nobody logged in within %v", d.life)}
			}
		}
		if err := c.pause(ctx, wait); err != nil {
			return Session{}, err
		}
		session, err := c.redeem(ctx, deviceGrant(d.deviceCode), replaced)
		var server *ServerError
		var unreachable *UnreachableError
		var gone *lostError
		switch {
		case err == nil || !session.IsZero() || ctx.Err() != nil:
			return session, err
		case errors.As(err, &server):
			switch {
			case server.Code == "authorization_pending":
			case server.Code == "slow_down":
				interval += slowDown
			case server.Code == "access_denied" || server.Code == "expired_token":
				return Session{}, &AuthorizationError{server.Code, server.Description}
			case server.Temporary():
				lost = lost || server.mayHaveSpent()
				interval = slower(interval)
			case lost:
				return Session{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
			default:
				return Session{}, err
			}
			wait = max(interval, min(server.RetryAfter, maxServerCooldown))
		case errors.As(err, &gone):
			lost = true
			interval = slower(interval)
			wait = interval
		case errors.As(err, &unreachable) && unreachable.Temporary():
			interval = slower(interval)
			wait = interval
		default:
			return Session{}, err
		}
	}
}

// slower is "an exponential backoff algorithm to achieve this, such as doubling the polling
// interval on each such connection timeout" (§3.5).
func slower(interval time.Duration) time.Duration { return max(interval, min(2*interval, maxInterval)) }

// pause waits, unless ctx ends or the client is closed.
func (c *Client) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return retry.Ended(ctx)
	case <-c.source.closing.Done():
		return ErrClosed
	}
}

// parseDevice reads the response of §3.2.
func parseDevice(body []byte) (deviceLogin, error) {
	var d deviceLogin
	m, err := strictjson.Object(body)
	if err != nil {
		return d, err
	}
	if m["verification_uri"] == nil {
		m["verification_uri"] = m["verification_url"] // as in the drafts: Google's
	}
	var deviceCode string
	for name, field := range map[string]*string{
		"device_code": &deviceCode, "user_code": &d.UserCode,
		"verification_uri": &d.VerificationURI, "verification_uri_complete": &d.VerificationURIComplete,
	} {
		if m[name] == nil {
			continue
		}
		if json.Unmarshal(m[name], field) != nil {
			return deviceLogin{}, errors.New(name + " is not a string")
		}
		if *field == "" {
			continue // as if it was absent
		}
		// It goes to a terminal.
		if !isVSChars(*field) || strings.HasPrefix(name, "verification") && strings.Contains(*field, " ") {
			return deviceLogin{}, errors.New(name + " has characters that are not printable ASCII, or a space")
		}
	}
	for name, field := range map[string]string{"device_code": deviceCode, "user_code": d.UserCode, "verification_uri": d.VerificationURI} {
		if field == "" {
			return deviceLogin{}, errors.New(name + " is missing")
		}
	}
	if len(d.UserCode) > maxUserCode {
		return deviceLogin{}, errors.New("user_code is longer than anybody types")
	}
	for _, uri := range []string{d.VerificationURI, d.VerificationURIComplete} {
		if uri == "" {
			continue
		}
		if _, err := wire.CheckURL(uri); err != nil { // the user logs in there
			return deviceLogin{}, fmt.Errorf("verification_uri %w", err)
		}
	}
	d.deviceCode = Secret(deviceCode)
	d.life = parseLifetime(m["expires_in"])
	if d.interval = parseLifetime(m["interval"]); d.interval == 0 {
		d.interval = defaultInterval
	}
	d.interval = min(d.interval, maxInterval)
	return d, nil
}

// maxUserCode is in characters. Those of known servers have 8 or 9.
const maxUserCode = 64
