//go:build unix

package etcdstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A cluster is some members of etcd on Unix sockets in a temporary directory.
type cluster struct {
	dir     string
	members []*member
}

type member struct {
	args    []string
	dir     string
	sockets []string

	mu      sync.Mutex
	process *exec.Cmd
	ended   chan struct{}
	log     bytes.Buffer
}

// missing says which program is not installed.
func missing() string {
	if _, err := exec.LookPath("etcd"); err != nil {
		return "etcd is not installed (Debian: apt-get install etcd-server)"
	}
	return ""
}

// startCluster starts n members with empty directories.
func startCluster(n int) (*cluster, error) {
	// Not t.TempDir, whose names are too long for a socket, and in memory where that can be
	// had: etcd writes each change to its disk, and that of tests is shared.
	parent := "/dev/shm"
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "etcd")
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	// The shortest lease is 1.5 elections, rounded up to one second. One member has nobody
	// to wait for.
	heartbeat, election := "10", "100"
	if n > 1 {
		heartbeat, election = "50", "500"
	}
	var peers []string
	for i := range n {
		peers = append(peers, fmt.Sprintf("m%d=unix://localhost:%d", i, 100+i))
	}
	for i := range n {
		client, peer := fmt.Sprintf("unix://localhost:%d", i), fmt.Sprintf("unix://localhost:%d", 100+i)
		sockets := []string{fmt.Sprintf("localhost:%d", i), fmt.Sprintf("localhost:%d", 100+i)}
		c.members = append(c.members, &member{dir: dir, sockets: sockets, args: []string{
			"--name", fmt.Sprint("m", i), "--data-dir", fmt.Sprint("data", i), "--initial-cluster", strings.Join(peers, ","),
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--heartbeat-interval", heartbeat, "--election-timeout", election, "--logger", "zap",
		}})
	}
	for _, m := range c.members {
		if err := m.start(); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	if err := c.ready(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// start starts a member, which has its data of before.
func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range m.sockets { // which stay where a server is killed
		_ = os.Remove(filepath.Join(m.dir, name))
	}
	cmd := exec.Command("etcd", m.args...)
	cmd.Dir = m.dir
	cmd.Stdout, cmd.Stderr = &m.log, &m.log
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return err
	}
	m.process, m.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		_ = cmd.Wait()
	}(m.ended)
	return nil
}

// stop ends a member. With SIGKILL it dies on the spot.
func (m *member) stop(sig syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return
	}
	_ = m.process.Process.Signal(sig)
	select {
	case <-m.ended:
	case <-time.After(20 * time.Second):
		_ = m.process.Process.Kill()
		<-m.ended
	}
	m.process = nil
}

func (c *cluster) endpoints() []string {
	var all []string
	for i := range c.members {
		all = append(all, "unix://"+filepath.Join(c.dir, fmt.Sprintf("localhost:%d", i)))
	}
	return all
}

// ready waits until the cluster has a leader.
func (c *cluster) ready() error {
	client, err := newClient(c.endpoints())
	if err != nil {
		return err
	}
	defer client.Close()
	deadline := time.Now().Add(20 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := client.Get(ctx, "anything")
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("etcd does not come up: %w\n%s", err, c.lastWords())
		}
		time.Sleep(20 * time.Millisecond)
		client.ActiveConnection().ResetConnectBackoff()
	}
}

// lastWords ends the first member, and returns the end of its log.
func (c *cluster) lastWords() string {
	c.members[0].stop(syscall.SIGKILL)
	lines := strings.Split(c.members[0].log.String(), "\n")
	return strings.Join(lines[max(len(lines)-10, 0):], "\n")
}

// leader returns the member that leads.
func (c *cluster) leader(ctx context.Context) (*member, error) {
	client, err := newClient(c.endpoints())
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
			return c.members[i], nil
		}
	}
	return nil, errors.New("there is no leader")
}

// moveLeader makes another member the leader.
func (c *cluster) moveLeader(ctx context.Context, leader *member) error {
	i := slices.Index(c.members, leader)
	client, err := newClient(c.endpoints()[i : i+1])
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

func (c *cluster) close() error {
	for _, m := range c.members {
		m.stop(syscall.SIGKILL)
	}
	return os.RemoveAll(c.dir)
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
	cluster *cluster
	err     error
}

// theServer returns a server of one member, which tests must leave as it was.
func theServer(t testing.TB) *cluster {
	t.Helper()
	shared.once.Do(func() {
		if shared.missing = missing(); shared.missing == "" {
			shared.cluster, shared.err = startCluster(1)
		}
	})
	fail(t, shared.missing, shared.err)
	return shared.cluster
}

// ownServer returns one that the test may stop.
func ownServer(t testing.TB, members int) *cluster {
	t.Helper()
	what := missing()
	var c *cluster
	var err error
	if what == "" {
		c, err = startCluster(members)
	}
	fail(t, what, err)
	t.Cleanup(func() {
		if err := c.close(); err != nil {
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
