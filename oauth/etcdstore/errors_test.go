//go:build unix

package etcdstore

import (
	"bytes"
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestOptions(t *testing.T) {
	good := keysOfVersions(1)
	client := &clientv3.Client{}
	for name, tc := range map[string]struct {
		client *clientv3.Client
		opts   Options
		want   []string // in the error; none: no error
	}{
		"good":         {client, Options{Keys: good}, nil},
		"in the clear": {client, Options{InTheClear: true}, nil},
		"nothing":      {nil, Options{}, []string{"pass a *clientv3.Client", "InTheClear"}},
		"prefix":       {client, Options{Keys: good, Prefix: "a\x00"}, []string{"Prefix is"}},
		"long prefix":  {client, Options{Keys: good, Prefix: strings.Repeat("x", maxKey+1)}, []string{"Prefix is"}},
		"durations":    {client, Options{Keys: good, Lease: -1, Timeout: -1, SaveTimeout: -1}, []string{"Lease is", "Timeout is", "SaveTimeout is"}},
		"owner":        {client, Options{Keys: good, Owner: "\xff"}, []string{"Owner"}},
		"keys":         {client, Options{Keys: Keys{ByVersion: map[uint32]cipher.AEAD{0: aead(1), 1: nil}, Seal: 3}}, []string{"version 0", "version 1 is nil", "no key of version 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := New(tc.client, tc.opts)
			if (err == nil) != (tc.want == nil) || (set == nil) != (tc.want != nil) {
				t.Fatal(set, err)
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in %v", part, err)
				}
			}
		})
	}
	set, err := New(client, Options{Keys: good})
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range []Keys{{}, {ByVersion: map[uint32]cipher.AEAD{1: nil}}} {
		var e *Error
		if err := set.SetKeys(keys); !errors.As(err, &e) {
			t.Errorf("SetKeys: %v", err)
		}
	}
	for prefix, want := range map[string]string{"": "oauth_sessions/", "a": "a/", "a/": "a/", "a/b": "a/b/"} {
		if set, err := New(client, Options{Keys: good, Prefix: prefix}); err != nil || set.prefix != want {
			t.Errorf("%q: %v, %v", prefix, set, err)
		}
	}
}

func TestKeys(t *testing.T) {
	set, err := New(&clientv3.Client{}, Options{Keys: keysOfVersions(1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "\x00", "\xff", strings.Repeat("k", maxKey+1)} {
		store := set.Store(key)
		_, load := store.Load(t.Context())
		_, deletion := set.Delete(t.Context(), key)
		for what, err := range map[string]error{
			"Load": load, "Update": store.Update(t.Context(), nil), "Delete": deletion, "Postpone": set.Postpone(t.Context(), key, 0, 0),
		} {
			if !errors.Is(err, ErrKey) {
				t.Errorf("%s(%.10q): %v", what, key, err)
			}
		}
	}
}

// What helps against each error of etcd, and whether waiting does.
func TestFailures(t *testing.T) {
	set, err := New(&clientv3.Client{}, Options{Keys: keysOfVersions(1)})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		err       error
		temporary bool
		says      string
	}{
		"no leader":        {rpctypes.ErrNoLeader, true, "no leader"},
		"leader changed":   {rpctypes.ErrLeaderChanged, true, ""},
		"timeout":          {rpctypes.ErrTimeout, true, ""},
		"too many":         {rpctypes.ErrTooManyRequests, true, ""},
		"canceled by etcd": {rpctypes.Error(rpctypes.ErrGRPCCanceled), true, ""},
		"no lease":         {rpctypes.ErrLeaseNotFound, true, ""},
		"old auth":         {rpctypes.ErrAuthOldRevision, true, ""},
		"no connection":    {status.Error(codes.Unavailable, "connection refused"), true, "refused"},
		"an attempt's end": {context.DeadlineExceeded, true, "no response within 10s"},
		"a deadline":       {status.Error(codes.DeadlineExceeded, "x"), true, "no response within 10s"},
		"no space":         {rpctypes.ErrNoSpace, true, "defragment"},
		"too large":        {rpctypes.ErrRequestTooLarge, false, "--max-request-bytes"},
		"no permission":    {rpctypes.ErrPermissionDenied, false, "grant the user"},
		"no token":         {rpctypes.ErrInvalidAuthToken, false, "the password"},
		"wrong password":   {rpctypes.ErrAuthFailed, false, "the password"},
		"closed":           {status.Error(codes.Canceled, "grpc: the client connection is closing"), false, "was closed"},
		"another one":      {errors.New("another one"), false, "another one"},
	} {
		e := set.failed(t.Context(), "do it", "k", fmt.Errorf("wrapped: %w", tc.err))
		if e.Temporary() != tc.temporary || !strings.Contains(e.Error(), tc.says) || errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("%s: %v, temporary %t", name, e, e.Temporary())
		}
		if !strings.Contains(e.Error(), `cannot do it: prefix "oauth_sessions/", key "k"`) {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// Keys and sessions are printed in no way.
func TestPrint(t *testing.T) {
	keys := Keys{ByVersion: map[uint32]cipher.AEAD{2: leaky{AEAD: aead(1), Text: "SECRET"}, 1: aead(1)}}
	set, err := New(&clientv3.Client{Username: "SECRET", Password: "SECRET"}, Options{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{keys, Options{Keys: keys}, set, set.Store("k"), *set.Store("k"), struct{ s *Set }{set}} {
		noSecret(t, v)
	}
	if s := keys.String(); s != "etcdstore.Keys[1 2]" {
		t.Error(s)
	}
	if s := set.Store("k").Key(); s != "k" {
		t.Error(s)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "keys", keys, "set", set, "store", set.Store("k"))
	if s := log.String(); strings.Contains(s, "SECRET") || !strings.Contains(s, "etcdstore.Store") {
		t.Error(s)
	}
}

type leaky struct {
	cipher.AEAD
	Text string
}
