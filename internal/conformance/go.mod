module github.com/ycauth/ycauth-go/internal/conformance

go 1.25.0

require (
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.22.1
	github.com/go-jose/go-jose/v4 v4.1.8
	github.com/ycauth/ycauth-go v0.1.0
	go.uber.org/goleak v1.3.0
	golang.org/x/oauth2 v0.36.0
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	github.com/go-piv/piv-go/v2 v2.5.0 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
)
