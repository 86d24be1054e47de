//go:build unix

package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// StartStandby copies the cluster to a new one and starts it as a synchronous standby: a
// commit of s is not confirmed before the standby has written it. The caller must Close both.
func (s *Server) StartStandby(ctx context.Context) (*Server, error) {
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	standby := &Server{dir: dir, bin: s.bin, cred: s.cred}
	if err := s.copyTo(ctx, standby); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := standby.StartAgain(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// Not before: the copy must not wait for a standby of its own after it was promoted.
	if err := s.configure("synchronous_standby_names = '*'"); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		_ = s.process.cmd.Process.Signal(syscall.SIGHUP)
	}
	return standby, nil
}

func (s *Server) copyTo(ctx context.Context, standby *Server) error {
	if s.cred != nil {
		if err := os.Chown(standby.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return err
		}
	}
	backup := standby.command(ctx, filepath.Join(s.bin, "pg_basebackup"), "--host="+s.dir, fmt.Sprintf("--port=%d", portDatabase),
		"--username=postgres", "--pgdata="+standby.data(), "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync")
	if out, err := backup.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	return standby.configure(fmt.Sprintf("unix_socket_directories = '%s'\nwal_retrieve_retry_interval = '200ms'", standby.dir))
}

// configure adds a line to the configuration.
func (s *Server) configure(line string) error {
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}

// Promote makes a standby the primary.
func (s *Server) Promote(ctx context.Context) error {
	promote := s.command(ctx, filepath.Join(s.bin, "pg_ctl"), "promote", "--wait", "--silent", "--pgdata="+s.data())
	if out, err := promote.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_ctl promote: %w\n%s", err, out)
	}
	return nil
}

// Dir is the directory of the server's socket.
func (s *Server) Dir() string { return s.dir }
