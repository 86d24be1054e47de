package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/piv"
)

// TestMain makes the test binary three programs: the test, ycauth itself, and
// the browser of its user.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){
		"ycauth":   func() { os.Exit(run(testSystem())) },
		"browser":  browserMain,
		"xdg-open": browserMain, // the system's browser on Linux
		"gosdk":    gosdkMain,
	})
}

type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// testSystem is the real one with the clock of the test's IAM and the maker of
// the test's card.
func testSystem() system {
	sys := realSystem()
	if path := os.Getenv("TEST_CLOCK"); path != "" {
		sys.now = testClock(path)
	}
	if path := os.Getenv("TEST_CARD_MAKER"); path != "" {
		sys.trust = mustReadTrust(path)
	}
	sys.sealKey = testKeyring
	if path := os.Getenv("TEST_SLOW_DISK"); path != "" {
		sys.wrapStore = func(s oauth.Store) oauth.Store { return slowStore{s, path} }
	}
	if os.Getenv("TEST_FULL_DISK") != "" {
		sys.wrapStore = func(s oauth.Store) oauth.Store { return fullStore{s} }
	}
	return sys
}

// testKeyring is a keyring in a file, which is locked if there is none.
func testKeyring(context.Context) (cipher.AEAD, error) {
	secret, err := os.ReadFile(os.Getenv("TEST_KEYRING"))
	if err != nil {
		return nil, fmt.Errorf("the keyring is locked")
	}
	key := sha256.Sum256(secret)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// fullStore is a store on a disk that has no room for another session.
type fullStore struct{ oauth.Store }

func (s fullStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.Store.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
		next, err := fn(current)
		if err == nil && next.Generation != current.Generation {
			err = syscall.ENOSPC
		}
		return current, err
	})
}

// slowStore is a store on a disk that takes as long as its user. It creates a
// file when something is to be written.
type slowStore struct {
	oauth.Store
	path string
}

func (s slowStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.Store.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
		next, err := fn(current)
		if err == nil && next.Generation != current.Generation {
			if err := os.WriteFile(s.path, []byte("writing"), 0o600); err != nil {
				return current, err
			}
			<-ctx.Done()
			return current, ctx.Err()
		}
		return next, err
	})
}

// mustReadTrust reads certificates in PEM, the root first.
func mustReadTrust(path string) piv.Trust {
	rest, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	trust := piv.Trust{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	pool := trust.Roots
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic(err)
		}
		pool.AddCert(cert)
		pool = trust.Intermediates
	}
	return trust
}

// testClock is a clock that the test sets with a file, also while the program runs.
func testClock(path string) func() time.Time {
	var mu sync.Mutex
	var ahead time.Duration
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		data, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			panic(err)
		}
		if len(data) > 0 { // the test may be writing it
			if ahead, err = time.ParseDuration(string(data)); err != nil {
				panic(err)
			}
		}
		return time.Now().Add(ahead)
	}
}

// browserMain is a browser that follows redirects. It writes the last page into
// $BROWSER_PAGE, and into $BROWSER_PEEK the arguments and environments that
// other programs of the user can see: its own and those of ycauth.
func browserMain() {
	if path := os.Getenv("BROWSER_PEEK"); path != "" {
		var seen []byte
		for _, pid := range []string{"self", strconv.Itoa(os.Getppid())} {
			for _, name := range []string{"cmdline", "environ"} {
				data, err := os.ReadFile("/proc/" + pid + "/" + name)
				if err != nil {
					panic(err)
				}
				seen = append(append(seen, data...), '\n')
			}
		}
		if err := os.WriteFile(path, seen, 0o600); err != nil {
			panic(err)
		}
	}
	client := &http.Client{Timeout: 30 * time.Second}
	resp, err := client.Get(os.Args[len(os.Args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		os.Exit(1)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	if path := os.Getenv("BROWSER_PAGE"); path != "" {
		if err := os.WriteFile(path, page, 0o600); err != nil {
			panic(err)
		}
	}
}
