//go:build unix

// Package etcdtest starts clusters of etcd for tests, on Unix sockets in a temporary
// directory. It needs no client of etcd, so that the modules that use it need not agree on
// one.
package etcdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Cluster is some members of etcd.
type Cluster struct {
	Members []*Member

	dir string
}

// A Member is one process of a cluster.
type Member struct {
	args         []string
	dir          string
	client, peer string // names of sockets

	mu      sync.Mutex
	process *exec.Cmd
	ended   chan struct{}
	log     *buffer
}

// Missing says which program is not installed, and which package has it; "" if it is there.
func Missing() string {
	if _, err := exec.LookPath("etcd"); err != nil {
		return "etcd is not installed (Debian: apt-get install etcd-server)"
	}
	return ""
}

// Start starts n members with empty directories, and waits until they have a leader.
func Start(n int) (*Cluster, error) {
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
	c := &Cluster{dir: dir}
	// The shortest lease is 1.5 elections, rounded up to one second. One member has nobody
	// to wait for.
	heartbeat, election := "10", "100"
	if n > 1 {
		heartbeat, election = "50", "500"
	}
	var peers []string
	for i := range n {
		m := &Member{dir: dir, client: fmt.Sprintf("localhost:%d", i), peer: fmt.Sprintf("localhost:%d", 100+i), log: &buffer{}}
		c.Members = append(c.Members, m)
		peers = append(peers, fmt.Sprintf("m%d=unix://%s", i, m.peer))
	}
	for i, m := range c.Members {
		client, peer := "unix://"+m.client, "unix://"+m.peer
		m.args = []string{
			"--name", fmt.Sprint("m", i), "--data-dir", fmt.Sprint("data", i), "--initial-cluster", strings.Join(peers, ","),
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--heartbeat-interval", heartbeat, "--election-timeout", election, "--logger", "zap",
		}
		if err := m.Start(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if err := c.Ready(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Start starts a member, which has its data of before.
func (m *Member) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range []string{m.client, m.peer} { // which stay where a server is killed
		_ = os.Remove(filepath.Join(m.dir, name))
	}
	cmd := exec.CommandContext(context.Background(), "etcd", m.args...) // it outlives the test that starts it again
	cmd.Dir = m.dir
	cmd.Stdout, cmd.Stderr = m.log, m.log
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = attributes()
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// "The parent" whose death sends a signal is the thread that started the process
		// (prctl(2), PR_SET_PDEATHSIG), so that thread must not end before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	m.process, m.ended = cmd, ended
	return nil
}

// Signal sends a signal to a member that runs, and does not wait for what comes of it.
func (m *Member) Signal(sig syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return os.ErrProcessDone
	}
	return m.process.Process.Signal(sig)
}

// Stop ends a member. With SIGKILL it dies on the spot.
func (m *Member) Stop(sig syscall.Signal) {
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

// Endpoints are the addresses of all members.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, "unix://"+filepath.Join(c.dir, m.client))
	}
	return all
}

// Ready waits until all members have a leader.
func (c *Cluster) Ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, m := range c.Members {
		if err := m.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (m *Member) ready(ctx context.Context) error {
	m.mu.Lock()
	ended := m.ended
	m.mu.Unlock()
	for {
		err := m.healthy(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("etcd has ended:\n%s", m.log)
		case <-ctx.Done():
			return fmt.Errorf("etcd does not come up: %w\n%s", err, m.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// healthy asks a member to agree with the others on something.
// https://etcd.io/docs/v3.4/op-guide/monitoring/#health-check
func (m *Member) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(m.dir, m.client))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/health", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

// Close ends all members and removes their data.
func (c *Cluster) Close() error {
	for _, m := range c.Members {
		m.Stop(syscall.SIGKILL)
	}
	return os.RemoveAll(c.dir)
}

// A buffer keeps a log, and prints the end of it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.b.Len() > 1<<20 {
		b.b.Reset()
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(b.b.String()), "\n")
	return strings.Join(lines[max(len(lines)-10, 0):], "\n")
}
