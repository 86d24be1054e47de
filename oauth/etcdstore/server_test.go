//go:build unix

package etcdstore

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ycauth/ycauth-go/internal/etcdtest"
)

// leaderOf returns the member that leads.
func leaderOf(ctx context.Context, c *etcdtest.Cluster) (*etcdtest.Member, error) {
	client, err := newClient(c.Endpoints())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for i, endpoint := range client.Endpoints() {
		status, err := client.Status(ctx, endpoint)
		if err != nil {
			return nil, err
		}
		if status.Header.MemberId == status.Leader {
			return c.Members[i], nil
		}
	}
	return nil, errors.New("there is no leader")
}

// moveLeader makes another member the leader.
func moveLeader(ctx context.Context, c *etcdtest.Cluster, leader *etcdtest.Member) error {
	i := slices.Index(c.Members, leader)
	client, err := newClient(c.Endpoints()[i : i+1])
	if err != nil {
		return err
	}
	defer client.Close()
	all, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	status, err := client.Status(ctx, client.Endpoints()[0])
	if err != nil {
		return err
	}
	for _, m := range all.Members {
		if m.ID != status.Leader {
			_, err := client.MoveLeader(ctx, m.ID)
			return err
		}
	}
	return errors.New("there is one member only")
}

func newClient(endpoints []string, options ...grpc.DialOption) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(),
		DialOptions: append(options, grpc.WithTransportCredentials(insecure.NewCredentials())),
	})
}

// shared is the server of this test binary, started by the first test that needs it.
var shared struct {
	once    sync.Once
	missing string
	cluster *etcdtest.Cluster
	err     error
}

// theServer returns a server of one member, which tests must leave as it was.
func theServer(t testing.TB) *etcdtest.Cluster {
	t.Helper()
	shared.once.Do(func() {
		if shared.missing = etcdtest.Missing(); shared.missing == "" {
			shared.cluster, shared.err = etcdtest.Start(1)
		}
	})
	fail(t, shared.missing, shared.err)
	return shared.cluster
}

// ownServer returns one that the test may stop.
func ownServer(t testing.TB, members int) *etcdtest.Cluster {
	t.Helper()
	what := etcdtest.Missing()
	var c *etcdtest.Cluster
	var err error
	if what == "" {
		c, err = etcdtest.Start(members)
	}
	fail(t, what, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func fail(t testing.TB, missing string, err error) {
	t.Helper()
	switch {
	case err != nil:
		t.Fatal(err)
	case missing != "" && os.Getenv("CI") == "true":
		t.Fatal(missing)
	case missing != "":
		t.Skip(missing)
	}
}

// newUser returns a client where authentication is on.
func newUser(endpoints []string, name, password string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(), Username: name, Password: password,
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
	})
}
