package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/ycauth/ycauth-go/internal/wire"
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
		p.Issuer = "" // another server's
	}
	p.AuthURL, p.TokenURL = e.Auth, e.Token
	return p
}

// overrides are endpoints that somebody set; the others are "".
type overrides struct {
	all string // of a server that is everything at once
	endpoints
}

func (o overrides) apply(to endpoints) endpoints {
	if o.all != "" {
		to = allAt(o.all)
	}
	for _, e := range []struct {
		to  *string
		set string
	}{{&to.Auth, o.Auth}, {&to.Token, o.Token}, {&to.IAM, o.IAM}, {&to.Operation, o.Operation}} {
		if e.set != "" {
			*e.to = e.set
		}
	}
	return to
}

// endpointFlags are what the command line and the environment say of endpoints.
//
// A login keeps both in the profile. From then on the environment changes nothing:
// a variable that somebody left there would have IAM tokens sent to a server that
// they are not for. Only a flag of the command itself can do so.
type endpointFlags struct {
	flags       overrides
	environment overrides
	set         []endpointFlag
}

// endpointFlag is one of them, and its variable.
type endpointFlag struct {
	name           string
	flag, variable *string
	query          bool // an address of this kind may have a query
}

func (e *endpointFlags) register(f *pflag.FlagSet, getenv func(string) string) {
	for _, o := range []struct {
		flag, set *string
		name, use string
	}{
		{&e.flags.all, &e.environment.all, "endpoint", "address of a server that is authorization server, IAM API and Operation API at once"},
		{&e.flags.Auth, &e.environment.Auth, "auth-url", "authorization endpoint"},
		{&e.flags.Token, &e.environment.Token, "token-url", "token endpoint"},
		{&e.flags.IAM, &e.environment.IAM, "iam-endpoint", "address of the IAM API"},
		{&e.flags.Operation, &e.environment.Operation, "operation-endpoint", "address of the Operation API"},
	} {
		variable := endpointVariable(o.name)
		*o.set = getenv(variable)
		e.set = append(e.set, endpointFlag{o.name, o.flag, o.set, strings.HasSuffix(o.name, "-url")})
		f.StringVar(o.flag, o.name, "", o.use+" (default: the profile's; for a login $"+variable+")")
	}
}

func endpointVariable(flag string) string {
	return "YCAUTH_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// check returns an error for a flag whose address cannot be used, and for a login also
// for such a variable.
func (e *endpointFlags) check(login bool) error {
	for _, f := range e.set {
		if err := checkAddress("--"+f.name, *f.flag, f.query); err != nil {
			return err
		}
		if !login {
			continue
		}
		if err := checkAddress("$"+endpointVariable(f.name), *f.variable, f.query); err != nil {
			return err
		}
	}
	return nil
}

// checkAddress does not quote the address, which may have a password.
func checkAddress(name, address string, query bool) error {
	if address == "" {
		return nil
	}
	u, err := wire.CheckURL(address)
	switch {
	case err != nil:
		return usagef("%s %w", name, err)
	case !query && (u.RawQuery != "" || u.ForceQuery):
		return usagef("%s has a query: want an address such as %s", name, refreshtoken.DefaultEndpoint)
	}
	return nil
}

// login are the endpoints of a login.
func (e *endpointFlags) login(of endpoints) endpoints {
	return e.flags.apply(e.environment.apply(of))
}

// foreignEndpoint is a variable of the environment that differs from the profile.
type foreignEndpoint struct{ sentence, flag string }

// foreign are the variables of the environment that differ from the profile.
func (e *endpointFlags) foreign(of endpoints) (sentences []foreignEndpoint) {
	type member struct{ flag, set, wanted, given string }
	here := e.environment.apply(of)
	given := e.flags.apply(endpoints{})
	for _, m := range []member{
		{"auth-url", e.environment.Auth, here.Auth, given.Auth},
		{"token-url", e.environment.Token, here.Token, given.Token},
		{"iam-endpoint", e.environment.IAM, here.IAM, given.IAM},
		{"operation-endpoint", e.environment.Operation, here.Operation, given.Operation},
	} {
		own := map[string]string{"auth-url": of.Auth, "token-url": of.Token, "iam-endpoint": of.IAM, "operation-endpoint": of.Operation}[m.flag]
		if m.wanted == own || m.given != "" {
			continue
		}
		flag, value := m.flag, m.set
		if value == "" {
			flag, value = "endpoint", e.environment.all
			if of == allAt(of.IAM) {
				own = of.IAM // an address is compared with an address
			} else {
				value += ", so that " + m.flag + " is " + m.wanted // as own is
			}
		}
		sentence := linef("$%s is %s, and the profile was made with %s", endpointVariable(flag), value, own)
		sentences = append(sentences, foreignEndpoint{sentence, flag})
		if flag == "endpoint" {
			break // the others would say the same
		}
	}
	return sentences
}

// checkEnvironment returns an error if the environment wants other endpoints than
// the profile has.
func (e *endpointFlags) checkEnvironment(p profile) error {
	foreign := e.foreign(p.own)
	if len(foreign) == 0 {
		return nil
	}
	f := foreign[0]
	switch f.flag {
	case "iam-endpoint", "operation-endpoint":
		return usagef("%s: unset it, or give --%s to this command", f.sentence, f.flag)
	}
	// The session is of no use there, whatever flags say.
	return usagef("%s: unset it, or log in there, with another --profile to keep this session", f.sentence)
}

// checkServer returns an error if flags name another authorization server than that of
// the session, which would have to be replaced by a login there.
func (e *endpointFlags) checkServer(p profile, s oauth.Session) error {
	if s.Provider != p.own.provider().Name || s.Provider == p.Endpoints.provider().Name {
		return nil
	}
	flag := "token-url"
	if e.flags.Token == "" {
		flag = "endpoint"
	}
	return usagef("the session was made at %s, and --%s names another server: leave it out, or log in there, with another --profile to keep this session",
		line(p.own.Token), flag)
}
