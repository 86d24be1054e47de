package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// demoLife is how long access tokens live in the demonstration. Its last sixth
// is when a request, or a probe, begins a renewal.
const demoLife = 30 * time.Second

// embed starts an IAM in this process, with an API, and logs in. end stops it
// and removes what it stored.
func (c *config) embed(ctx context.Context, out io.Writer) (end func(), err error) {
	dir, err := os.MkdirTemp("", "ycauth-service-")
	if err != nil {
		return nil, err
	}
	iam, err := iamtest.New(iamtest.Options{
		Nonces: iamtest.NoncesRequired, Rotation: iamtest.RotateAlways, AccessLife: demoLife,
	})
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	end = func() {
		iam.Close()
		os.RemoveAll(dir)
	}
	c.provider, c.clientID, c.api = iam.Provider(), iam.ClientID, iam.URL+"/api/whoami"
	c.keyFile, c.sessions = filepath.Join(dir, "dpop.pem"), filepath.Join(dir, "sessions")
	if err := loginEmbedded(ctx, *c, iam); err != nil {
		end()
		return nil, err
	}
	fmt.Fprintf(out, "An IAM server and an API run in this process, at %s, and the service has logged in there.\n", iam.URL)
	return end, nil
}

// loginEmbedded logs in at a server that asks no questions.
func loginEmbedded(ctx context.Context, cfg config, iam *iamtest.Server) error {
	cfg.login = true
	s, err := newService(cfg)
	if err != nil {
		return err
	}
	_, err = s.begin(ctx, oauth.LoginOptions{OpenURL: iam.OpenURL})
	return err
}

// explain says what there is to see.
func explain(out io.Writer, address string) {
	fmt.Fprintf(out, `Access tokens live %[2]v here. In their last %[3]v a request still uses the
token in memory, and starts a renewal in the background. Each renewal returns a new refresh token, which is saved.

  curl http://%[1]s/          the response of the API, called with a valid token
  curl http://%[1]s/readyz    whether there is a token, and for how long
  curl http://%[1]s/metrics   how many renewals there were, by result
  curl http://%[1]s/healthz   whether the process is alive

Ctrl-C ends it, after the requests and renewals in progress.
`, address, demoLife, demoLife/6)
}
