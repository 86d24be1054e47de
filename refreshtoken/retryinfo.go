package refreshtoken

import (
	"encoding/json"
	"strings"
	"time"
)

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
