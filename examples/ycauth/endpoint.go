package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// endpoints are the addresses of one cloud.
type endpoints struct {
	Auth      string `json:"auth_url"`
	Token     string `json:"token_url"`
	IAM       string `json:"iam_endpoint"`
	Operation string `json:"operation_endpoint"`
}

func yandexCloud() endpoints {
	p := oauth.YandexCloud()
	return endpoints{
		Auth: p.AuthURL, Token: p.TokenURL,
		IAM: refreshtoken.DefaultEndpoint, Operation: refreshtoken.DefaultOperationEndpoint,
	}
}

// allAt are the endpoints of a server that is everything at once.
func allAt(address string) endpoints {
	address = strings.TrimRight(address, "/")
	return endpoints{
		Auth: address + "/oauth/authorize", Token: address + "/oauth/token",
		IAM: address, Operation: address,
	}
}

// provider describes the authorization server. Its name goes into the session,
// which is thereby never used at another server than the one that made it.
func (e endpoints) provider() oauth.Provider {
	p := oauth.YandexCloud()
	if e.Token != p.TokenURL {
		p.Name += " at " + e.Token
	}
	p.AuthURL, p.TokenURL = e.Auth, e.Token
	return p
}

// endpointFlags are the flags that override a profile's endpoints.
type endpointFlags struct {
	all string
	endpoints
}

func (e *endpointFlags) register(f *pflag.FlagSet, getenv func(string) string) {
	f.StringVar(&e.all, "endpoint", getenv("YCAUTH_ENDPOINT"), "address of a server that is everything at once ($YCAUTH_ENDPOINT)")
	f.StringVar(&e.Auth, "auth-url", getenv("YCAUTH_AUTH_URL"), "authorization endpoint ($YCAUTH_AUTH_URL)")
	f.StringVar(&e.Token, "token-url", getenv("YCAUTH_TOKEN_URL"), "token endpoint ($YCAUTH_TOKEN_URL)")
	f.StringVar(&e.IAM, "iam-endpoint", getenv("YCAUTH_IAM_ENDPOINT"), "address of the IAM API ($YCAUTH_IAM_ENDPOINT)")
	f.StringVar(&e.Operation, "operation-endpoint", getenv("YCAUTH_OPERATION_ENDPOINT"), "address of the Operation API ($YCAUTH_OPERATION_ENDPOINT)")
}

// apply returns what the flags make of a profile's endpoints.
func (e *endpointFlags) apply(to endpoints) endpoints {
	if e.all != "" {
		to = allAt(e.all)
	}
	for _, o := range []struct {
		to   *string
		flag string
	}{{&to.Auth, e.Auth}, {&to.Token, e.Token}, {&to.IAM, e.IAM}, {&to.Operation, e.Operation}} {
		if o.flag != "" {
			*o.to = o.flag
		}
	}
	return to
}
