package main

import (
	"crypto"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// config is what flags and the environment say. Each flag has a variable of the
// same name, SERVICE_LISTEN for -listen; the flag wins.
type config struct {
	listen   string
	api      string // what GET / asks
	iam      string // the base URL of an authorization server that is not Yandex Cloud's
	clientID string
	keyFile  string
	sessions string // directory
	store    string // URL of the database that has the session, in the place of sessions; may have a password
	sealKey  string // file, for store
	profile  string
	announce time.Duration // how long probes are told that the service is about to stop
	drain    time.Duration // for the requests that run when the service is told to stop
	login    bool
	demo     bool

	limits   limits
	provider oauth.Provider
	iamHTTP  *http.Client     // for token requests; nil is http.DefaultClient
	clock    func() time.Time // nil is time.Now
	log      *slog.Logger
}

// limits bound what others can keep the service waiting for.
type limits struct {
	read  time.Duration // a whole request: those of this service have no body
	write time.Duration // a whole response, with the wait for the API's
	api   time.Duration // a request to the API
	ready time.Duration // how long a probe waits for a renewal
}

// defaultLimits are shorter than the default of -drain where a stop has to wait for
// them, so that a slow client does not make it fail.
func defaultLimits() limits {
	return limits{read: 5 * time.Second, write: 45 * time.Second, api: 30 * time.Second, ready: 2 * time.Second}
}

func parseConfig(args []string, getenv func(string) string, stderr io.Writer) (config, error) {
	cfg := config{log: slog.New(slog.DiscardHandler), limits: defaultLimits()}
	f := flag.NewFlagSet("service", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&cfg.listen, "listen", "127.0.0.1:8080", "`address` to serve on")
	f.StringVar(&cfg.api, "api", "", "`URL` of the API that GET / asks")
	f.StringVar(&cfg.iam, "iam", "", "base `URL` of another authorization server than Yandex Cloud's, with /oauth/authorize and /oauth/token")
	f.StringVar(&cfg.clientID, "client-id", oauth.YandexCloudClientID, "OAuth client `ID`")
	f.StringVar(&cfg.keyFile, "key", "", "DPoP key `file`, made by -login if it is not there (default dpop.pem beside the sessions)")
	f.StringVar(&cfg.sessions, "sessions", "", "`directory` of the sessions (default ycauth-service/sessions in the user's configuration)")
	f.StringVar(&cfg.store, "store", "", "`URL` of a PostgreSQL database for the session, such as postgres://app@db/app, instead of -sessions;\n"+
		"a password is better in SERVICE_STORE, PGPASSWORD or a .pgpass file, because others can see the command line")
	f.StringVar(&cfg.sealKey, "seal-key", "", "`file` with the key that encrypts the session in -store, 32 bytes in base64, made by -login if it is not there (default seal.key beside the DPoP key)")
	f.StringVar(&cfg.profile, "profile", "default", "`name` of the session")
	f.DurationVar(&cfg.announce, "announce", 5*time.Second, "how long /readyz returns 503 before new connections are refused; longer than the interval of the probes")
	f.DurationVar(&cfg.drain, "drain", 10*time.Second, "how long requests may take to finish when the service is told to stop")
	f.BoolVar(&cfg.login, "login", false, "log in, store the session, and exit")
	f.BoolVar(&cfg.demo, "demo", false, "run against an IAM of its own, in this process")
	if err := cfg.fromEnvironment(f, getenv); err != nil {
		return config{}, err
	}
	if err := f.Parse(args); err != nil {
		return config{}, err
	}
	if f.NArg() > 0 {
		return config{}, fmt.Errorf("%q is too much: everything is a flag, see -help", f.Arg(0))
	}
	return cfg, cfg.resolve()
}

// fromEnvironment sets the flags that have a variable.
func (c *config) fromEnvironment(f *flag.FlagSet, getenv func(string) string) error {
	var errs []error
	f.VisitAll(func(fl *flag.Flag) {
		name := "SERVICE_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
		if v := getenv(name); v != "" {
			if err := fl.Value.Set(v); err != nil {
				errs = append(errs, fmt.Errorf("%s=%s: %w", name, v, err))
			}
		}
	})
	return errors.Join(errs...)
}

// resolve fills in what follows from the rest.
func (c *config) resolve() error {
	c.provider = oauth.YandexCloud()
	switch {
	case c.announce < 0 || c.drain < 0:
		return errors.New("-announce and -drain cannot be negative")
	case c.demo && c.store != "":
		return errors.New("-demo keeps its session in a file: leave out -store")
	case c.demo:
		return nil // embed knows the rest
	case c.store != "" && c.sessions != "":
		return errors.New("the session is in a database or in files: leave out -store or -sessions")
	case c.store == "" && c.sealKey != "":
		return errors.New("-seal-key is for -store: filestore.WithSeal encrypts files")
	}
	if c.iam != "" {
		u, err := url.Parse(c.iam)
		if err != nil || u.Host == "" {
			return fmt.Errorf("-iam %s is not a URL", c.iam)
		}
		c.provider.Name = u.Host // a session belongs to the server that it was made by
		c.provider.AuthURL = u.JoinPath("oauth/authorize").String()
		c.provider.TokenURL = u.JoinPath("oauth/token").String()
	}
	if err := c.resolveFiles(); err != nil {
		return err
	}
	if c.login {
		return nil // the API is not asked
	}
	if u, err := url.Parse(c.api); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("-api is missing, or is not a URL; -demo runs without")
	}
	return nil
}

// resolveFiles fills in where the session and the keys are.
func (c *config) resolveFiles() error {
	beside := filepath.Dir(c.sessions)
	if c.sessions == "" && (c.store == "" || c.keyFile == "") {
		dir, err := filestore.DefaultDir("ycauth-service")
		if err != nil && c.store != "" {
			return fmt.Errorf("say where the DPoP key is with -key: %w", err)
		}
		if err != nil {
			return fmt.Errorf("say where sessions are with -sessions: %w", err)
		}
		beside = filepath.Dir(dir)
		if c.store == "" {
			c.sessions = dir
		}
	}
	if c.keyFile == "" {
		c.keyFile = filepath.Join(beside, "dpop.pem")
	}
	if c.store != "" && c.sealKey == "" {
		c.sealKey = filepath.Join(filepath.Dir(c.keyFile), "seal.key")
	}
	return nil
}

// key is the one that the session is bound to. Only a login makes one: a new key
// is of no use to a session that there is already.
func (c *config) key() (crypto.Signer, error) {
	if !c.login {
		key, err := dpop.LoadKeyFile(c.keyFile)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w; log in first, with -login and the same -sessions or -store", err)
		}
		return key, err
	}
	if err := os.MkdirAll(filepath.Dir(c.keyFile), 0o700); err != nil {
		return nil, err
	}
	return dpop.LoadOrGenerateKeyFile(c.keyFile)
}
