//go:build unix

package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ycauth/ycauth-go/internal/etcdtest"
	"github.com/ycauth/ycauth-go/oauth"
)

// through renews the session of a new key, and does what else there is to be done, such that
// each step is taken.
func through(ctx context.Context, set *Set, key string) error {
	store := set.Store(key)
	var found uint64
	for _, do := range []func() error{
		func() error { return store.UpdateLease(ctx, renewed(1)) },
		func() error { return store.UpdateLease(ctx, renewed(2)) },
		func() error { return store.UpdateLease(ctx, renewed(2)) },
		func() error {
			return store.Update(ctx, func(s oauth.Session) (oauth.Session, error) { return s, nil })
		},
		func() error {
			s, err := store.Load(ctx)
			found = s.Generation
			return err
		},
		func() error { return store.UpdateLease(ctx, renewed(0)) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	if found != 2 {
		return fmt.Errorf("generation %d was stored, want 2", found)
	}
	return nil
}

// The connection breaks before or after etcd has run a transaction. Nobody notices.
func TestConnectionBreaks(t *testing.T) {
	t.Parallel()
	set, _ := newSet(t, theServer(t), Options{Lease: time.Hour}) // none is waited for
	tapped := tap(set)
	for _, op := range []string{opTake, opBegin, opSave, opRelease, opRestore, opRemove, "load the session"} {
		t.Run(op+" is not sent", func(t *testing.T) {
			tapped.on(everyOther(op, nil, rpctypes.ErrNoLeader), nil)
			if err := through(t.Context(), set, t.Name()); err != nil {
				t.Error(err)
			}
		})
		t.Run("the response is lost of "+op, func(t *testing.T) {
			tapped.on(nil, everyOther(op, nil, rpctypes.ErrTimeoutDueToConnectionLost))
			if err := through(t.Context(), set, t.Name()); err != nil {
				t.Error(err)
			}
		})
		tapped.on(nil, nil)
		for _, key := range []string{op + " is not sent", "the response is lost of " + op} {
			if got := inspect(t, set, key); got != (rawState{}) {
				t.Errorf("%s: etcd has %+v", key, got)
			}
		}
	}
}

// A store that does not know what it has done itself must be caught.
func TestConnectionControls(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		lost string
		edit func(op string, tx *txn)
	}{
		"its own lease": {opTake, func(op string, tx *txn) {
			if op == opTake {
				tx.otherwise[0] = clientv3.OpGet("of somebody else")
			}
		}},
		"its own session": {opSave, func(op string, tx *txn) {
			if op == opCheck {
				tx.then = []clientv3.Op{clientv3.OpGet("of somebody else")}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			set, client := newSet(t, theServer(t), Options{Lease: time.Hour})
			if _, err := client.Put(t.Context(), "of somebody else", "x"); err != nil {
				t.Fatal(err)
			}
			tapped := tap(set)
			tapped.edit = tc.edit
			tapped.on(nil, everyOther(tc.lost, nil, rpctypes.ErrTimeout))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := through(ctx, set, "k")
			if err == nil {
				t.Error("nobody has noticed")
			}
			t.Log(err)
		})
	}
}

// A proxy passes bytes on until it is cut.
type proxy struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newProxy(t *testing.T, c *etcdtest.Cluster) (p *proxy, endpoint string) {
	t.Helper()
	to := strings.TrimPrefix(c.Endpoints()[0], "unix://")
	socket := filepath.Join(filepath.Dir(to), fmt.Sprintf("proxy%d", prefixes.Add(1)))
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	p = &proxy{listener: l, to: to, conns: make(map[net.Conn]bool)}
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p, "unix://" + socket
}

func (p *proxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		var dialer net.Dialer
		out, err := dialer.DialContext(context.Background(), "unix", p.to)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		p.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			p.wg.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				pair[0].Close()
				pair[1].Close()
			})
		}
	}
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
		delete(p.conns, conn)
	}
}

// Real connections are cut before each transaction, while it runs, and after it.
func TestCut(t *testing.T) {
	t.Parallel()
	p, endpoint := newProxy(t, theServer(t))
	client, err := newClient([]string{endpoint})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	set, err := New(client, Options{Prefix: newPrefix(), Keys: keysOfVersions(1), Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	tapped := tap(set)
	for _, op := range []string{opTake, opBegin, opSave, opRestore, opRemove} {
		tapped.on(everyOther(op, p.cut, nil), nil)
		if err := through(t.Context(), set, "before "+op); err != nil {
			t.Error(err)
		}
		tapped.on(everyOther(op, func() { go p.cut() }, nil), nil)
		if err := through(t.Context(), set, "during "+op); err != nil {
			t.Error(err)
		}
		tapped.on(nil, everyOther(op, p.cut, nil))
		if err := through(t.Context(), set, "after "+op); err != nil {
			t.Error(err)
		}
	}
}

// The server is restarted, or crashes, while a token request is made and the session
// saved.
func TestRestart(t *testing.T) {
	t.Parallel()
	c := ownServer(t, 1)
	for name, sig := range map[string]syscall.Signal{"shutdown": syscall.SIGTERM, "crash": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			patient, _ := newSet(t, c, Options{})
			put(t, patient.Store("k"), session(1))
			set, _ := newSet(t, c, Options{Prefix: patient.prefix})
			store := set.Store("k")
			tapped := tap(set)
			up := make(chan error, 1)
			err := store.UpdateLease(t.Context(), func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
				if err := begin(l); err != nil {
					return oauth.Session{}, err
				}
				c.Members[0].Stop(sig)
				set.timeout = 500 * time.Millisecond
				tries := 0
				tapped.on(func(string) error {
					if tries++; tries == 3 { // two attempts find no server
						up <- c.Members[0].Start()
					}
					return nil
				}, nil)
				return session(2), nil
			})
			if err != nil {
				t.Error(err)
			}
			if err := <-up; err != nil {
				t.Fatal(err)
			}
			expect(t, patient.Store("k"), 2)
			if got := inspect(t, patient, "k"); got.held || got.marked {
				t.Errorf("etcd has %+v", got)
			}
		})
	}
}

// gRPC waits for longer and longer before it connects again, so it is told to do it now.
func TestNudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		stop := nudge(func() { n.Add(1) })
		time.Sleep(3500 * time.Millisecond)
		stop()
		time.Sleep(time.Hour)
		if n.Load() != 3 {
			t.Errorf("%d times in 3.5 s", n.Load())
		}
	})
}

// Without a server calls fail soon, and say that it may help to wait.
func TestServerDown(t *testing.T) {
	t.Parallel()
	c := ownServer(t, 1)
	set, _ := newSet(t, c, Options{SaveTimeout: 300 * time.Millisecond})
	store := set.Store("k")
	put(t, store, session(1))
	var inFn error
	err := store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		c.Members[0].Stop(syscall.SIGKILL)
		set.timeout = 500 * time.Millisecond
		_, inFn = store.Load(t.Context())
		return session(2), nil
	})
	_, load := store.Load(t.Context())
	update := store.Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
		t.Error("fn was called")
		return s, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	canceled := store.Update(ctx, nil)
	if err := c.Members[0].Start(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"Load in fn": inFn, "save": err, "Load": load, "Update": update} {
		var e *Error
		if !errors.Is(err, ErrUnavailable) || !errors.As(err, &e) || !e.Temporary() || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !errors.Is(canceled, context.Canceled) {
		t.Errorf("with a ctx that has ended: %v", canceled)
	}
	if err := c.Ready(); err != nil {
		t.Fatal(err)
	}
	patient, _ := newSet(t, c, Options{Prefix: set.prefix})
	expect(t, patient.Store("k"), 1)
}

// A server that does not respond is given up after Options.Timeout.
func TestNoResponse(t *testing.T) {
	t.Parallel()
	c := ownServer(t, 1)
	patient, _ := newSet(t, c, Options{})
	put(t, patient.Store("k"), session(1))
	set, _ := newSet(t, c, Options{Prefix: patient.prefix, Timeout: 200 * time.Millisecond})
	member := c.Members[0]
	err := member.Signal(syscall.SIGSTOP)
	for err == nil { // a process stops a while after the signal
		_, err = set.Store("k").Load(t.Context())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, short := set.Store("k").Load(ctx)
	if err := member.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if !errors.As(err, &e) || !e.Temporary() || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Load: %v", err)
	}
	if !errors.Is(short, context.DeadlineExceeded) {
		t.Errorf("Load with a deadline: %v", short)
	}
	expect(t, patient.Store("k"), 1)
}

// The leader hands over, and another one dies, while token requests are made. Two of three
// members are enough.
func TestLeaderChange(t *testing.T) {
	t.Parallel()
	c := ownServer(t, 3)
	set, _ := newSet(t, c, Options{})
	other, _ := newSet(t, c, Options{Prefix: set.prefix})
	store := set.Store("k")
	put(t, store, session(1))
	for i, change := range []func(leader *etcdtest.Member) error{
		func(leader *etcdtest.Member) error { return moveLeader(t.Context(), c, leader) },
		func(leader *etcdtest.Member) error {
			leader.Stop(syscall.SIGKILL)
			return nil
		},
	} {
		leader, err := leaderOf(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		generation := uint64(i) + 2
		err = store.UpdateLease(t.Context(), func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
			if err := errors.Join(begin(l), change(leader)); err != nil {
				return oauth.Session{}, err
			}
			// With another leader, the lease and the mark are what they were.
			if err := begin(l); err != nil {
				return oauth.Session{}, err
			}
			if got := inspect(t, other, "k"); !got.held || !got.marked {
				t.Errorf("etcd has %+v", got)
			}
			return session(generation), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, other.Store("k"), generation)
	}
}

// The lease of etcd that all locks are attached to is gone: for a lock that is lost, Begin
// fails, and the next one is attached to a new one.
func TestLeaseRevoked(t *testing.T) {
	t.Parallel()
	set, client := newSet(t, theServer(t), Options{})
	store := set.Store("k")
	put(t, store, session(1))
	err := store.UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		if err := begin(l); err != nil {
			return s, err
		}
		expire(t, set, client)
		_, _, err := l.Begin(t.Context())
		return s, err
	})
	if !errors.Is(err, oauth.ErrLeaseLost) {
		t.Errorf("Begin: %v", err)
	}
	put(t, store, session(2)) // etcd does not know the lease that this tries at first
	expect(t, store, 2)
	// What the server gave for a refresh token is kept without a lease, too.
	err = store.UpdateLease(t.Context(), func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
		defer expire(t, set, client)
		return session(3), begin(l)
	})
	if err != nil {
		t.Error(err)
	}
	expect(t, store, 3)
	if got := inspect(t, set, "k"); got.marked {
		// The lease was lost, but the refresh token that the mark was about is replaced.
		t.Errorf("etcd has %+v", got)
	}
}

// An operator deletes a session that is being renewed.
func TestDeletedElsewhere(t *testing.T) {
	c, prefix := theServer(t), newPrefix()
	set, client := newSet(t, c, Options{Prefix: prefix})
	other, _ := newSet(t, c, Options{Prefix: prefix})
	for name, remove := range map[string]func() error{
		"by Set.Delete": func() error {
			there, err := other.Delete(t.Context(), "k")
			if !there {
				t.Error("it was not there")
			}
			return err
		},
		"by etcdctl": func() error {
			_, err := client.Delete(t.Context(), prefix, clientv3.WithPrefix())
			return err
		},
	} {
		put(t, set.Store("k"), session(1))
		err := set.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
			if err := errors.Join(begin(l), remove()); err != nil {
				return s, err
			}
			if _, _, err := l.Begin(t.Context()); !errors.Is(err, oauth.ErrLeaseLost) {
				t.Errorf("%s: Begin: %v", name, err)
			}
			return session(2), nil
		})
		if !errors.Is(err, oauth.ErrLeaseLost) {
			t.Errorf("%s: %v", name, err)
		}
		expect(t, set.Store("k"), 0)
		if got := inspect(t, set, "k"); got != (rawState{}) {
			t.Errorf("%s: etcd has %+v", name, got)
		}
	}
}

// Users of etcd without permission, and a client that was closed, are told what to do.
func TestPermission(t *testing.T) {
	t.Parallel()
	c := ownServer(t, 1)
	client := clientOf(t, c)
	run := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	for _, name := range []string{"root", "app", "stranger"} {
		run(client.RoleAdd(ctx, name))
		run(client.UserAdd(ctx, name, "x"))
		run(client.UserGrantRole(ctx, name, name))
	}
	const prefix = "app/sessions/"
	run(client.RoleGrantPermission(ctx, "app", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite)))
	run(client.AuthEnable(ctx))
	for user, tc := range map[string]struct{ password, says string }{
		"app":      {"x", ""},
		"stranger": {"x", "grant the user"},
		"":         {"", "user and the password"},
	} {
		user, err := newUser(c.Endpoints(), user, tc.password)
		if err != nil {
			t.Fatal(err)
		}
		defer user.Close()
		set, err := New(user, Options{Prefix: prefix, Keys: keysOfVersions(1)})
		if err != nil {
			t.Fatal(err)
		}
		err = through(t.Context(), set, "k")
		var e *Error
		if tc.says == "" {
			if err != nil {
				t.Error(err)
			}
			for _, err := range set.List(t.Context()) {
				t.Errorf("List: %v", err)
			}
			continue
		}
		if !errors.As(err, &e) || e.Temporary() || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", user.Username, err)
		}
	}
	closed, err := newClient(c.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	set, err := New(closed, Options{Prefix: prefix, Keys: keysOfVersions(1)})
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	var e *Error
	if _, err = set.Store("k").Load(t.Context()); !errors.As(err, &e) || e.Temporary() || !strings.Contains(err.Error(), "was closed") {
		t.Errorf("Load: %v", err)
	}
}

func TestCallersWhoseContextEnds(t *testing.T) {
	c := ownServer(t, 1)
	set, _ := newSet(t, c, Options{})
	put(t, set.Store("u"), session(1))
	if err := c.Members[0].Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Members[0].Signal(syscall.SIGCONT) }()
	for name, call := range map[string]func(ctx context.Context) error{
		"Load": func(ctx context.Context) error { _, err := set.Store("u").Load(ctx); return err },
		"Update": func(ctx context.Context) error {
			return set.Store("u").Update(ctx, func(s oauth.Session) (oauth.Session, error) { return s, nil })
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		start := time.Now()
		err := call(ctx)
		cancel()
		if d := time.Since(start); d > 1500*time.Millisecond || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s returned after %v, of which 300 ms were its own: %v", name, d, err)
		}
	}
}
