module github.com/ycauth/ycauth-go

go 1.25.0

require (
	github.com/cenkalti/backoff/v4 v4.3.0
	github.com/go-jose/go-jose/v4 v4.1.8
	golang.org/x/oauth2 v0.36.0
)

// Tests only.
require go.uber.org/goleak v1.3.0
