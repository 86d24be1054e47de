package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A database is a PostgreSQL server with an empty cluster, on a Unix socket.
type database struct {
	dir     string // of the cluster and the socket
	program string
	cred    *syscall.Credential
	cmd     *exec.Cmd
}

// newDatabase starts a server for the test.
func newDatabase(t *testing.T) *database {
	t.Helper()
	initdb, err := exec.LookPath("initdb")
	if err != nil { // Debian does not put it on PATH
		versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
		switch {
		case len(versions) > 0:
			initdb = versions[len(versions)-1]
		case os.Getenv("CI") == "true":
			t.Fatal("PostgreSQL is not installed (Debian: apt-get install postgresql)")
		default:
			t.Skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
		}
	}
	if initdb, err = filepath.EvalSymlinks(initdb); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pg") //nolint:usetesting // the names of t.TempDir are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	d := &database{dir: dir, program: filepath.Join(filepath.Dir(initdb), "postgres")}
	t.Cleanup(func() {
		d.stop()
		_ = os.RemoveAll(dir)
	})
	if os.Getuid() == 0 { // PostgreSQL does not run as root
		if d.cred, err = account("postgres"); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, int(d.cred.Uid), int(d.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := d.command(initdb, "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	d.start(t)
	return d
}

func account(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, wrongUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, wrongGID := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(wrongUID, wrongGID)
}

func (d *database) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, append(args, "-D", filepath.Join(d.dir, "data"))...)
	cmd.Dir = d.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.cred, Pdeathsig: syscall.SIGQUIT} // ends with the test
	return cmd
}

func (d *database) start(t *testing.T) {
	t.Helper()
	d.cmd = d.command(d.program, "-k", d.dir, "-c", "listen_addresses=", "-c", "fsync=off")
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx := bounded(t)
	for {
		conn, err := pgx.Connect(ctx, d.url(""))
		if err == nil {
			_ = conn.Close(ctx)
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("PostgreSQL does not start: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *database) stop() {
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}

// url is the address of the database with a password, which the server does not ask for.
func (d *database) url(password string) string {
	userinfo := url.User("postgres")
	if password != "" {
		userinfo = url.UserPassword("postgres", password)
	}
	return fmt.Sprintf("postgres://%s@/postgres?host=%s", userinfo, url.QueryEscape(d.dir))
}

// text is the text of the first row of a query.
func (d *database) text(t *testing.T, sql string) string {
	t.Helper()
	ctx := bounded(t)
	conn, err := pgx.Connect(ctx, d.url(""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var text string
	if err := conn.QueryRow(ctx, sql).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}
