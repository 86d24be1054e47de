package main

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// traceTransport shows requests for -v: where they go and how they end, and
// neither headers nor bodies nor queries, where the secrets are.
type traceTransport struct {
	base   http.RoundTripper
	logger *slog.Logger
}

func (t traceTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	began := time.Now()
	resp, err := t.base.RoundTrip(req)
	attrs := []slog.Attr{
		slog.String("method", req.Method),
		slog.String("url", redact.Text(req.URL.Scheme+"://"+req.URL.Host+req.URL.EscapedPath())),
		slog.Duration("duration", time.Since(began).Round(time.Millisecond)),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", redact.Text(err.Error())))
	} else {
		attrs = append(attrs, slog.Int("status", resp.StatusCode))
	}
	t.logger.LogAttrs(req.Context(), slog.LevelDebug, "request", attrs...)
	return resp, err
}
