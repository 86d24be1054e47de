module github.com/ycauth/ycauth-go

go 1.25.0

// Everybody who imports this module gets these versions at least, whichever of
// its packages they use. What drags more lives in a module of its own. piv-go is not
// v2.6.0, which would have every importer of package piv move to x/crypto v0.50.0.
require (
	github.com/cenkalti/backoff/v4 v4.3.0
	github.com/go-jose/go-jose/v4 v4.1.8
	github.com/go-piv/piv-go/v2 v2.5.0
	golang.org/x/oauth2 v0.36.0
)

// Tests.
require go.uber.org/goleak v1.3.0
