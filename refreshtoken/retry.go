package refreshtoken

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// temporary reports whether another attempt may succeed, and how long the server
// asks to wait for it. Revoke is no exception: its idempotency key makes
// all attempts one revocation.
func temporary(err error) (after time.Duration, again bool) {
	var api *APIError
	var response *ResponseError
	var transport *TransportError
	switch {
	case errors.As(err, &api):
		return api.RetryAfter, api.temporary()
	case errors.As(err, &response):
		return 0, errors.Is(response.Err, io.ErrUnexpectedEOF)
	case errors.As(err, &transport):
		return 0, transport.Temporary
	}
	return 0, false
}

func (e *APIError) temporary() bool {
	switch {
	case e.HTTPStatus == http.StatusTooManyRequests:
		return true
	case e.HTTPStatus >= 400 && e.HTTPStatus < 500:
		return false
	case e.HTTPStatus == http.StatusBadGateway, e.HTTPStatus == http.StatusServiceUnavailable,
		e.HTTPStatus == http.StatusGatewayTimeout:
		return true
	}
	return e.Code == CodeUnavailable || e.Code == CodeResourceExhausted || e.Code == CodeDeadlineExceeded
}

// retryDelay is the longest retryDelay of the google.rpc.RetryInfo among the
// details: "Clients should wait at least this long between retrying the same
// request" (google/rpc/error_details.proto). It is 0 where there is none.
func retryDelay(details []json.RawMessage) time.Duration {
	var longest time.Duration
	for _, d := range details {
		var info struct {
			Type       string `json:"@type"`
			RetryDelay string `json:"retryDelay"`
		}
		if json.Unmarshal(d, &info) == nil && strings.HasSuffix(info.Type, "/google.rpc.RetryInfo") {
			longest = max(longest, durationOf(info.RetryDelay))
		}
	}
	return longest
}

// durationOf reads the JSON form of google.protobuf.Duration: seconds with up to
// nine fraction digits, and an "s". It is 0 for anything else, and a year at most.
func durationOf(s string) time.Duration {
	const most = 365 * 24 * time.Hour
	number, ok := strings.CutSuffix(s, "s")
	whole, _, _ := strings.Cut(number, ".")
	if !ok || strings.Trim(number, "0123456789.") != "" {
		return 0
	}
	if len(strings.TrimLeft(whole, "0")) > 9 { // more than 30 years, and soon more than a Duration holds
		return most
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0
	}
	return min(d, most)
}
