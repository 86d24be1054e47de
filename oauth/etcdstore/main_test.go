//go:build unix

package etcdstore

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/ycauth/ycauth-go/internal/etcdtest"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

func TestMain(m *testing.M) {
	storetest.Child(subject)
	// The tests wait more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	status := m.Run()
	if shared.cluster != nil {
		if err := shared.cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	if err := goleak.Find(); status == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// aead returns a key, which is always the same for the same number.
func aead(number byte) cipher.AEAD {
	block, err := aes.NewCipher([]byte(strings.Repeat(string(rune(number)), 32)))
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

func keysOfVersions(versions ...byte) Keys {
	k := Keys{ByVersion: map[uint32]cipher.AEAD{}}
	for _, v := range versions {
		k.ByVersion[uint32(v)] = aead(v)
	}
	return k
}

// shortLease is that of places, whose processes are stopped for longer.
const shortLease = time.Second

// A place is where the processes of package storetest find a session.
type place struct {
	Endpoints   []string
	Prefix, Key string
}

func openPlace(text string) (oauth.Store, error) {
	var p place
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, err
	}
	// The server is restarted often.
	soon := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}}
	client, err := newClient(p.Endpoints, grpc.WithConnectParams(soon))
	if err != nil {
		return nil, err
	}
	set, err := New(client, Options{Prefix: p.Prefix, Keys: keysOfVersions(1), Lease: shortLease})
	if err != nil {
		client.Close()
		return nil, err
	}
	return &closing{set.Store(p.Key), client}, nil
}

type closing struct {
	*Store
	client *clientv3.Client
}

func (c *closing) Close() error { return c.client.Close() }

var prefixes atomic.Int64

// newPrefix returns one that nobody has.
func newPrefix() string { return fmt.Sprintf("test %d/", prefixes.Add(1)) }

func clientOf(t testing.TB, c *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	client, err := newClient(c.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// newSet returns a set with a prefix of its own, and the client that it is on.
func newSet(t testing.TB, c *etcdtest.Cluster, opts Options) (*Set, *clientv3.Client) {
	t.Helper()
	client := clientOf(t, c)
	if opts.Prefix == "" {
		opts.Prefix = newPrefix()
	}
	if opts.Keys.ByVersion == nil && !opts.InTheClear {
		opts.Keys = keysOfVersions(1)
	}
	set, err := New(client, opts)
	if err != nil {
		t.Fatal(err)
	}
	return set, client
}

// session returns one that was renewed from generation 1.
func session(generation uint64) oauth.Session {
	return oauth.Session{
		Provider: "auth.example", ClientID: "client", Generation: generation, TokenType: "Bearer",
		RefreshToken: oauth.Secret(fmt.Sprintf("rt1.SECRET.%d", generation)),
		AccessToken:  oauth.Secret(fmt.Sprintf("t1.SECRET.%d", generation)),
		Scopes:       []string{"openid", "offline_access"},
	}
}

func put(t testing.TB, s oauth.Store, next oauth.Session) {
	t.Helper()
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return next, nil })
	if err != nil {
		t.Fatal(err)
	}
}

// expect checks the generation that is stored; 0 stands for none.
func expect(t testing.TB, s oauth.Store, generation uint64) {
	t.Helper()
	got, err := s.Load(t.Context())
	if generation == 0 {
		if err != oauth.ErrNoSession { //nolint:errorlint // as it is
			t.Fatalf("Load: %v, %v, want no session", got, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got.Generation != generation || got.RefreshToken != session(generation).RefreshToken {
		t.Fatalf("generation %d is stored, want %d", got.Generation, generation)
	}
}

// A rawState is what etcd has of a session.
type rawState struct {
	generation           int64
	there, based         bool
	held, marked, claims bool
}

func inspect(t testing.TB, s *Set, key string) rawState {
	t.Helper()
	resp, err := s.etcd.txn(t.Context(), "inspect", txn{then: append(s.getSession(key),
		clientv3.OpGet(s.leaseKey(key)), clientv3.OpGet(s.markKey(key)), clientv3.OpGet(s.claimKey(key)))})
	if err != nil {
		t.Fatal(err)
	}
	state := rawState{
		there: valueOf(resp, 0) != nil, based: valueOf(resp, 1) != nil,
		held: valueOf(resp, 2) != nil, marked: valueOf(resp, 3) != nil, claims: valueOf(resp, 4) != nil,
	}
	if state.there {
		r, err := recordOf(valueOf(resp, 0))
		if err != nil {
			t.Fatal(err)
		}
		state.generation = r.Generation
	}
	return state
}

// noSecret prints a value in every way there is.
func noSecret(t *testing.T, v any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		if s := fmt.Sprintf(verb, v); strings.Contains(s, "SECRET") || strings.Contains(s, fmt.Sprintf("%x", "SECRET")) {
			t.Errorf("%s prints a secret: %s", verb, s)
		}
	}
}
