package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the program with these flags, and returns what it prints, which ends
// with the URL of a resource.
func start(t *testing.T, args ...string) (printed string, end func()) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, args, w, io.Discard)
		w.CloseWithError(errors.Join(errors.New("the program has ended"), err))
		done <- err
	}()
	lines := bufio.NewReader(r)
	for !strings.Contains(printed, "a resource") {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		printed += line
	}
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return printed, end
}

// value is the rest of the line that begins with name.
func value(t *testing.T, printed, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^#   ` + name + ` +(\S+)$`).FindStringSubmatch(printed)
	if m == nil {
		t.Fatalf("no %s in\n%s", name, printed)
	}
	return m[1]
}

// visit is a browser for a server that asks no questions.
func visit(hc *http.Client) func(context.Context, string) error {
	return func(ctx context.Context, url string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := hc.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
}

// TestLogin takes a client through its life with nothing but what the program
// prints.
func TestLogin(t *testing.T) {
	for name, args := range map[string][]string{
		"as it is":       nil,
		"a day ahead":    {"-ahead", "24h"},
		"a day behind":   {"-ahead", "-24h"},
		"always rotates": {"-rotation", "always", "-nonces", "off", "-access-life", "20m"},
	} {
		t.Run(name, func(t *testing.T) {
			printed, end := start(t, args...)
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			prover, err := dpop.New(key)
			if err != nil {
				t.Fatal(err)
			}
			provider := oauth.YandexCloud()
			provider.Name, provider.Issuer = "iamserver", ""
			provider.AuthURL, provider.TokenURL = value(t, printed, "authorization endpoint"), value(t, printed, "token endpoint")
			hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			client, err := oauth.New(oauth.Config{Provider: provider, ClientID: value(t, printed, "client ID"), DPoP: prover, HTTPClient: hc})
			if err != nil {
				t.Fatal(err)
			}
			session, err := client.Login(t.Context(), oauth.LoginOptions{OpenURL: visit(hc)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.TokenSource().Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			renewed, err := client.Session(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if rotated := renewed.RefreshToken != session.RefreshToken; rotated != (name == "always rotates") {
				t.Errorf("the refresh token was replaced: %v", rotated)
			}
			n := 0
			for _, err := range refreshtoken.NewClient(client.HTTPClient(), refreshtoken.WithEndpoint(value(t, printed, "RefreshToken API"))).List(t.Context(), refreshtoken.ListOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			if n != 3 {
				t.Errorf("%d refresh tokens, want this one and two earlier ones", n)
			}
			if err := client.TokenSource().Close(); err != nil {
				t.Error(err)
			}
			end()
			if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// TestPort: the port is the one that was asked for, and one that is taken is an
// error.
func TestPort(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := run(t.Context(), []string{"-port", port}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "cannot listen") {
		t.Errorf("at a port that is taken: %v", err)
	}
	l.Close()
	printed, _ := start(t, "-port", port)
	if !strings.Contains(printed, "export YCAUTH_ENDPOINT=http://127.0.0.1:"+port+"\n") {
		t.Errorf("it does not listen at port %s:\n%s", port, printed)
	}
}

// TestReady: standard error says so when it can be used, and not before the lines to
// export are written.
func TestReady(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var exported strings.Builder
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, nil, &exported, w)
		w.Close()
		done <- err
	}()
	lines := bufio.NewScanner(r)
	ready := false
	for !ready && lines.Scan() {
		ready = regexp.MustCompile(`^iamserver: ready at http://127\.0\.0\.1:\d+$`).MatchString(lines.Text())
	}
	if !ready || !strings.Contains(exported.String(), "export YCAUTH_ENDPOINT=") {
		t.Errorf("ready: %v, exported:\n%s", ready, &exported)
	}
	cancel()
	_, _ = io.Copy(io.Discard, r)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMistakes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"-rotation", "sometimes"}, {"-nonces", ""}, {"-access-life", "0"}, {"-refresh-life", "-1h"}, {"-port", "65536"}, {"-seed", "-1"}, {"now"},
	} {
		var said strings.Builder
		err := run(ctx, args, io.Discard, &said)
		if !errors.As(err, new(usageError)) || !strings.Contains(said.String(), args[0]) {
			t.Errorf("%v: %v\n%s", args, err, &said)
		}
	}
	if err := run(ctx, []string{"-help"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
}
