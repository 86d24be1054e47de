package killtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// Child plays the part of a process that [Run] started, until it is killed. In
// another process it returns at once.
func Child() {
	value, ok := os.LookupEnv(partVariable)
	if !ok {
		return
	}
	var p part
	err := json.Unmarshal([]byte(value), &p)
	if err == nil {
		err = p.play(context.Background())
	}
	fmt.Println("error:", err)
	os.Exit(1)
}

func (p part) play(ctx context.Context) error {
	w := &wire{base: http.DefaultTransport}
	c, survives, err := p.client(w)
	if err != nil {
		return err
	}
	// The store survives with one kind of step, and is durable after another.
	var survived time.Time
	durable.SetHook(&durable.Hook{
		Before: func(op durable.Op) error {
			switch {
			case op.Kind == durable.SyncFile || op.Kind == durable.SyncDir:
				time.Sleep(p.Sync)
			case filepath.Ext(op.Path) != ".next":
			case op.Kind == durable.Write:
				time.Sleep(p.BeforeWrite)
			case op.Kind == durable.Rename:
				time.Sleep(p.BeforeRename)
			}
			return nil
		},
		After: func(op durable.Op) {
			if op.Kind == survives {
				survived = time.Now()
			}
		},
	})
	w.heard = func(token string) { fmt.Println("heard", digest(token)) }
	ts := c.TokenSource()
	fmt.Println("ready")
	var last time.Time
	for n := 1; ; n++ {
		if n%8 == 0 { // a source may force a few renewals in a row only
			if c, _, err = p.client(w); err != nil {
				return err
			}
			ts = c.TokenSource()
		}
		if _, err := ts.Renew(ctx); err != nil {
			return err
		}
		now := time.Now()
		cycle := time.Duration(0)
		if !last.IsZero() {
			cycle = w.at.Sub(last)
		}
		last = w.at
		fmt.Println("renewed", int64(survived.Sub(w.at)), int64(now.Sub(w.at)), int64(cycle))
		if p.Compare {
			start := time.Now()
			if err := durable.Replace(filepath.Join(p.Dir, "usual"), make([]byte, 1500), 0o600); err != nil {
				return err
			}
			fmt.Println("usual", int64(time.Since(start)))
		}
	}
}

// client returns a client over a store, and the step by which the store survives
// the process.
func (p part) client(transport http.RoundTripper) (*oauth.Client, durable.OpKind, error) {
	key, err := dpop.LoadOrGenerateKeyFile(filepath.Join(p.Dir, "dpop.pem"))
	if err != nil {
		return nil, "", err
	}
	prover, err := dpop.New(key)
	if err != nil {
		return nil, "", err
	}
	var store oauth.Store
	survives := durable.Write
	dir := filepath.Join(p.Dir, "sessions")
	if p.Way == Afterwards {
		store, survives = &afterwards{path: filepath.Join(dir, "default.json")}, durable.Rename
		err = os.MkdirAll(dir, 0o700)
	} else {
		store, err = filestore.New(dir, "default")
	}
	if err != nil {
		return nil, "", err
	}
	c, err := oauth.New(oauth.Config{
		Provider: oauth.Provider{
			Name: "iamtest", TokenURL: p.Server + "/oauth/token", AuthURL: p.Server + "/oauth/authorize",
			Scopes: []string{"openid", "offline_access"}, OfflineScope: "offline_access",
		},
		ClientID: oauth.YandexCloudClientID, DPoP: prover, Store: store,
		HTTPClient: &http.Client{Transport: transport},
	})
	return c, survives, err
}

// A wire sees the refresh tokens that are sent and received.
type wire struct {
	base  http.RoundTripper
	heard func(token string)
	sent  string
	at    time.Time // of the last response with a refresh token
}

// RoundTrip implements [http.RoundTripper].
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		if form, err := url.ParseQuery(string(body)); err == nil && form.Has("refresh_token") {
			w.sent = form.Get("refresh_token")
		}
	}
	resp, err := w.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	arrived := time.Now()
	var token struct {
		RefreshToken string `json:"refresh_token"`
	}
	if json.Unmarshal(body, &token) == nil && token.RefreshToken != "" {
		if w.heard != nil {
			w.heard(token.RefreshToken)
		}
		w.at = arrived
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// afterwards is a store as most programs have it.
type afterwards struct{ path string }

func (s *afterwards) Load(context.Context) (oauth.Session, error) {
	data, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return oauth.Session{}, oauth.ErrNoSession
	}
	if err != nil {
		return oauth.Session{}, err
	}
	return oauth.DecodeSession(data)
}

func (s *afterwards) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	release, err := filelock.New(s.path + ".lock").Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	current, err := s.Load(ctx)
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return err
	}
	next, err := fn(current)
	if err != nil || next.IsZero() {
		return err
	}
	data, err := next.Encode()
	if err != nil {
		return err
	}
	return durable.Replace(s.path, data, 0o600)
}
