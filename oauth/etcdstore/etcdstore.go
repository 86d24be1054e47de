package etcdstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/gate"
	"github.com/ycauth/ycauth-go/oauth/internal/seal"
)

// Options describe a [Set].
type Options struct {
	// Keys seal the sessions. Required, unless InTheClear is set.
	Keys Keys

	// InTheClear allows sessions that are not sealed: anyone who can read the keys of
	// etcd or a snapshot then has refresh tokens. Without Keys, sessions are stored so.
	// With Keys, those that are stored so can be read, until [Set.Reseal] or their next
	// change seals them. Optional.
	InTheClear bool

	// Prefix is what all keys of the set in etcd begin with; a slash is added if it does
	// not end in one. No other program may write there, and no other set may have a
	// prefix that begins with this one. Optional. Default: "oauth_sessions/".
	Prefix string

	// SealedAs is the prefix that sealed sessions are bound to. Set it to the former one
	// after the keys were copied to another prefix. Optional. Default: Prefix.
	SealedAs string

	// Lease is how long the lease of a session lasts, if its holder does not give it
	// back. After the death of a holder, others wait for up to a quarter more, rounded
	// up to seconds. It must be longer than oauth.Config.RequestTimeout. Optional.
	// Default: 1 minute, which suits the default there.
	Lease time.Duration

	// Timeout is how long one request to etcd may take, with the wait for a connection.
	// Optional. Default: 10 seconds.
	Timeout time.Duration

	// SaveTimeout is how long to keep trying to store a new session while etcd is not
	// available. Optional. Default: 30 seconds.
	SaveTimeout time.Duration

	// RenewAt is the moment from which [Set.Due] returns a session, by the clock of this
	// process; the zero time means never. It is called when a session is stored.
	// Optional. Default: when a fifth of the time is left between Session.Obtained and
	// Session.RefreshExpiry; never, if that is zero.
	RenewAt func(oauth.Session) time.Time

	// Owner names this process to those who look at the keys. Optional. Default: the
	// name of the host and the id of the process.
	Owner string
}

// A Set is the sessions under one prefix. It is safe for concurrent use. It has no
// goroutine and need not be closed; its client belongs to the caller.
type Set struct {
	etcd        etcd
	prefix      string
	sealer      *seal.Sealer
	lease       time.Duration
	timeout     time.Duration
	saveTimeout time.Duration
	renewAt     func(oauth.Session) time.Time
	owner       string
	now         func() time.Time // of this process

	gates  gate.Gates
	grants grants
}

// New returns the set of sessions under a prefix. It does not connect.
func New(client *clientv3.Client, opts Options) (*Set, error) {
	if opts.Prefix == "" {
		opts.Prefix = "oauth_sessions"
	}
	opts.Prefix = slashed(opts.Prefix)
	if opts.SealedAs == "" {
		opts.SealedAs = opts.Prefix
	}
	if opts.RenewAt == nil {
		opts.RenewAt = defaultRenewAt
	}
	if opts.Owner == "" {
		host, _ := os.Hostname()
		opts.Owner = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	s := &Set{
		etcd: server{client}, prefix: opts.Prefix, sealer: seal.New("etcd "+slashed(opts.SealedAs), opts.InTheClear),
		lease:   orDefault(opts.Lease, time.Minute),
		timeout: orDefault(opts.Timeout, 10*time.Second), saveTimeout: orDefault(opts.SaveTimeout, 30*time.Second),
		renewAt: opts.RenewAt, owner: opts.Owner, now: time.Now,
	}
	s.grants = grants{set: s, granted: make(chan struct{}, 1)}
	if err := errors.Join(s.sealer.SetKeys(seal.Keys(opts.Keys)), opts.check(client)); err != nil {
		return nil, &Error{Op: "use these Options", Prefix: opts.Prefix, Err: err}
	}
	return s, nil
}

func slashed(prefix string) string {
	if strings.HasSuffix(prefix, "/") {
		return prefix
	}
	return prefix + "/"
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// check returns all that is wrong, but for Keys, which the sealer checks.
func (o Options) check(client *clientv3.Client) error {
	var wrong []error
	report := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if client == nil {
		report("there is no client: pass a *clientv3.Client")
	}
	if badText(o.Prefix) || len(o.Prefix) > maxKey {
		report("Prefix is not UTF-8 without NUL, or is longer than %d bytes", maxKey)
	}
	for name, d := range map[string]time.Duration{"Lease": o.Lease, "Timeout": o.Timeout, "SaveTimeout": o.SaveTimeout} {
		if d < 0 {
			report("%s is negative", name)
		}
	}
	if badText(o.Owner) {
		report("Owner is not UTF-8 without NUL")
	}
	return errors.Join(wrong...)
}

const maxKey = 1024

func badText(s string) bool { return !utf8.ValidString(s) || strings.ContainsRune(s, 0) }

// defaultRenewAt is when a fifth of the life of the refresh token is left: 6 of 31 days,
// where servers issue another one that late only.
func defaultRenewAt(s oauth.Session) time.Time {
	if s.RefreshExpiry.IsZero() {
		return time.Time{}
	}
	since := s.Obtained
	if since.IsZero() {
		since = s.Created
	}
	if since.IsZero() || !since.Before(s.RefreshExpiry) {
		return s.RefreshExpiry
	}
	return s.RefreshExpiry.Add(-s.RefreshExpiry.Sub(since) / 5)
}

// String keeps fmt from reading the keys.
func (s *Set) String() string { return fmt.Sprintf("etcdstore.Set(%q)", s.prefix) }

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (s *Set) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer].
func (s *Set) LogValue() slog.Value { return slog.StringValue(s.String()) }

// SetKeys replaces the keys while the program runs. See [Keys] for the steps.
func (s *Set) SetKeys(keys Keys) error {
	if err := s.sealer.SetKeys(seal.Keys(keys)); err != nil {
		return &Error{Op: "use these Keys", Prefix: s.prefix, Err: err}
	}
	return nil
}

// Store returns the store of one session. It does not connect. A key is any text without
// NUL of 1 to 1,024 bytes, such as the id of a user: it is stored and logged in the
// clear. Errors of calls with another key match [ErrKey].
func (s *Set) Store(key string) *Store { return &Store{set: s, key: key} }

func (s *Set) checkKey(op, key string) error {
	switch {
	case key == "", len(key) > maxKey:
		return &Error{Op: op, Prefix: s.prefix, Kind: ErrKey, remedy: "a key has 1 to 1024 bytes"}
	case badText(key):
		return &Error{Op: op, Prefix: s.prefix, Key: key, Kind: ErrKey, remedy: "a key is UTF-8 without NUL"}
	}
	return nil
}

// A Store keeps one session. It implements [oauth.LeaseStore], is safe for concurrent
// use, and costs nothing while it is not used.
type Store struct {
	set *Set
	key string
}

var _ oauth.LeaseStore = (*Store)(nil)

// Key returns the key of the session.
func (s *Store) Key() string { return s.key }

// String names the store.
func (s *Store) String() string { return fmt.Sprintf("etcdstore.Store(%q, %q)", s.set.prefix, s.key) }

// Format implements [fmt.Formatter] for every verb, which must not print the keys of the set.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer].
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Load implements [oauth.Store], with one linearizable read. Errors that do not match
// [oauth.ErrNoSession] are of type [*Error].
func (s *Store) Load(ctx context.Context) (oauth.Session, error) {
	const op = "load the session"
	if err := s.set.checkKey(op, s.key); err != nil {
		return oauth.Session{}, err
	}
	if ctx.Err() != nil {
		return oauth.Session{}, retry.Ended(ctx)
	}
	resp, err := attempts(ctx, s.set, op, s.key, few, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.set.etcd.txn(ctx, op, txn{then: s.set.getSession(s.key)})
	})
	if err != nil {
		return oauth.Session{}, err
	}
	r, err := rowOf(valueOf(resp, 0), valueOf(resp, 1))
	if err != nil {
		return oauth.Session{}, s.set.unreadable(op, s.key, err)
	}
	session, err := s.set.decode(op, s.key, r)
	if err == nil && session.IsZero() {
		err = oauth.ErrNoSession
	}
	return session, err
}

// decode reads a row.
func (s *Set) decode(op, key string, r seal.Row) (oauth.Session, error) {
	session, err := s.sealer.Decode(key, r)
	if err != nil {
		return oauth.Session{}, s.unreadable(op, key, err)
	}
	return session, nil
}

// The keys in etcd. The first three letters are those of one session.
func (s *Set) sessionKey(key string) string { return s.prefix + "s/" + key } // a record
func (s *Set) baseKey(key string) string    { return s.prefix + "b/" + key } // seal.Lineage of its session
func (s *Set) leaseKey(key string) string   { return s.prefix + "l/" + key } // the owner, attached to a lease
func (s *Set) markKey(key string) string    { return s.prefix + "m/" + key } // a mark
func (s *Set) claimKey(key string) string   { return s.prefix + "d/" + key } // attached to a lease
func (s *Set) clockKey(id clientv3.LeaseID) string {
	return s.prefix + "c/" + clockName(id) // attached to the lease
}

// A record is what is stored of a session.
type record struct {
	Format     int       `json:"format"`
	KeyVersion int64     `json:"key_version"` // 0: in the clear
	Generation int64     `json:"generation"`
	Updated    time.Time `json:"updated"`           // by the clock of the process that stored it
	RenewAt    time.Time `json:"renew_at,omitzero"` // by the same
	Session    []byte    `json:"session"`           // sealed, or in the clear
}

const recordFormat = 1

func recordOf(value []byte) (record, error) {
	var r record
	if err := json.Unmarshal(value, &r); err != nil || r.Format != recordFormat || r.Session == nil {
		// Without err, which can quote what is stored.
		return record{}, fmt.Errorf("%w: it is not a record of format %d", oauth.ErrSessionFormat, recordFormat)
	}
	return r, nil
}

// rowOf makes a row of the values of a session and its base; nil if there are none.
func rowOf(session, base []byte) (seal.Row, error) {
	if session == nil && base == nil {
		return seal.Row{Base: []byte{}}, nil
	}
	r, err := recordOf(session)
	return seal.Row{Session: r.Session, KeyVersion: r.KeyVersion, Generation: r.Generation, Base: base}, err
}

func recordValue(r seal.Row, updated, renewAt time.Time) (string, error) {
	if y := renewAt.UTC().Year(); y < 1 || y > 9999 {
		renewAt = time.Time{} // which JSON does not hold: never
	}
	value, err := json.Marshal(record{
		Format: recordFormat, KeyVersion: r.KeyVersion, Generation: r.Generation, Updated: updated.UTC(), RenewAt: renewAt.UTC(), Session: r.Session,
	})
	return string(value), err
}

// getSession reads what there is of a session in the order session, base.
func (s *Set) getSession(key string) []clientv3.Op {
	return []clientv3.Op{clientv3.OpGet(s.sessionKey(key)), clientv3.OpGet(s.baseKey(key))}
}

// valueOf is what the read number i found; nil if there is no such key.
func valueOf(resp *clientv3.TxnResponse, i int) []byte {
	kvs := resp.Responses[i].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return nil
	}
	return append([]byte{}, kvs[0].Value...) // not nil if it is empty
}

// A txn is one transaction: if all of the comparisons hold, what is to be done then, and
// otherwise.
type txn struct {
	cmps            []clientv3.Cmp
	then, otherwise []clientv3.Op
}

// etcd is what a set asks of etcd. op names a transaction.
type etcd interface {
	txn(ctx context.Context, op string, t txn) (*clientv3.TxnResponse, error)
	grant(ctx context.Context, d time.Duration) (id clientv3.LeaseID, ttl int64, err error)
	timeToLive(ctx context.Context, id clientv3.LeaseID) (granted, remaining int64, err error)
	reconnect()
}

type server struct{ client *clientv3.Client }

func (s server) txn(ctx context.Context, _ string, t txn) (*clientv3.TxnResponse, error) {
	return s.client.Txn(ctx).If(t.cmps...).Then(t.then...).Else(t.otherwise...).Commit()
}

// maxGrant is less than the longest lease that etcd grants.
const maxGrant = 100 * 365 * 24 * time.Hour

// grant returns a lease that lasts for ttl seconds, which is d or maxGrant at least.
func (s server) grant(ctx context.Context, d time.Duration) (id clientv3.LeaseID, ttl int64, err error) {
	resp, err := s.client.Grant(ctx, int64((min(d, maxGrant)+time.Second-1)/time.Second))
	if err != nil {
		return 0, 0, err
	}
	return resp.ID, resp.TTL, nil
}

// timeToLive is in seconds. remaining is negative if the lease is not known.
func (s server) timeToLive(ctx context.Context, id clientv3.LeaseID) (granted, remaining int64, err error) {
	resp, err := s.client.TimeToLive(ctx, id)
	if err != nil {
		return 0, 0, err
	}
	return resp.GrantedTTL, resp.TTL, nil
}

// reconnect makes gRPC try to connect now. After some failures it waits for minutes.
func (s server) reconnect() {
	if conn := s.client.ActiveConnection(); conn != nil {
		conn.ResetConnectBackoff()
	}
}

// few is how often a request is tried that somebody waits for.
const few = 4

// attempts makes a request that can be repeated. It tries it again while the error is
// temporary, most times at most, until ctx ends.
func attempts[T any](ctx context.Context, s *Set, op, key string, most int, request func(context.Context) (T, error)) (T, error) {
	policy := retry.Policy{Attempts: most, Initial: 50 * time.Millisecond, Max: time.Second}
	return retry.Do(ctx, policy, func(ctx context.Context, attempt int) (T, error) {
		if attempt > 1 {
			s.etcd.reconnect()
		}
		within, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		defer nudge(s.etcd.reconnect)()
		v, err := request(within)
		if err == nil {
			return v, nil
		}
		failure := s.failed(ctx, op, key, err)
		waited := within.Err() != nil && most == few // for long enough
		if failure.Temporary() && !waited {
			return v, retry.Temporary(failure, 0)
		}
		return v, failure
	})
}

// nudge calls f once in a second until stop is called. The client of etcd lets requests wait
// for a connection, and gRPC waits for longer and longer before it tries to make one.
func nudge(f func()) (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(time.Second, func() {
		f()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Reset(time.Second)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
		timer = nil
	}
}

// attached makes a request that attaches keys to the leases of a grant.
func attached[T any](ctx context.Context, s *Set, op, key string, request func(context.Context, *grant) (T, error)) (T, error) {
	return attempts(ctx, s, op, key, few, func(ctx context.Context) (T, error) {
		g, err := s.grants.get(ctx)
		if err != nil {
			var none T
			return none, err
		}
		v, err := request(ctx, g)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			s.grants.drop(g)
		}
		return v, err
	})
}
