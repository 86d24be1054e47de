package refreshtoken

import (
	"encoding/json"
	"testing"
	"time"
)

func TestRetryDelay(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, c := range []struct {
		detail string
		want   time.Duration
	}{
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3s"}`, 3 * time.Second},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.250s"}`, 250 * time.Millisecond},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.000000001s"}`, time.Second + 1},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"315576000000s"}`, year},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"99999999s"}`, year},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"-3s"}`, 0},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3m"}`, 0},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1h3s"}`, 0},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.2.3s"}`, 0},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"123456789.1.2s"}`, 0},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"s"}`, 0},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":3}`, 0},
		{`{"@type":"type.googleapis.com/google.rpc.RetryInfo"}`, 0},
		{`{"@type":"type.googleapis.com/google.rpc.RequestInfo","retryDelay":"3s"}`, 0},
		{`[]`, 0},
	} {
		if got := retryDelay([]json.RawMessage{json.RawMessage(`{}`), json.RawMessage(c.detail)}); got != c.want {
			t.Errorf("%s: got %v, want %v", c.detail, got, c.want)
		}
	}
}
