//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// TestLoginThatCannotBeSaved: the session of before is as good as it was, whatever
// key the new one has, and no grant is left that nobody can use.
func TestLoginThatCannotBeSaved(t *testing.T) {
	for _, tt := range []struct {
		name    string
		revoke  int // HTTP status of the revocation; 0 for success
		live    int
		message []string
	}{
		{"and is revoked", 0, 1, []string{"could not be saved, so it was revoked", "no space left on device"}},
		{"nor revoked", 503, 2, []string{"could not be revoked either", "ycauth list", "no space left on device"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, nil)
			h.must(0, "login")
			if tt.revoke != 0 {
				h.srv.Inject(iamtest.EndpointRevoke, iamtest.HTTPStatus(tt.revoke, 0), -1)
			}
			cmd := h.command("ycauth", "login", "--key-file", "other.pem", "--federation-id", "another")
			cmd.Env = append(cmd.Env, "TEST_FULL_DISK=1")
			r := h.finish(cmd)
			if r.code != exitFailure {
				t.Error(r)
			}
			for _, want := range tt.message {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("no %q in %v", want, r)
				}
			}
			h.srv.ClearFaults()
			if live := h.srv.LiveGrants(); live != tt.live {
				t.Errorf("%d grants are live, want %d", live, tt.live)
			}
			h.advance(13 * time.Hour)
			h.must(0, "token")
			if r := h.must(0, "key", "show"); strings.Contains(r.stdout, "other.pem") {
				t.Error(r)
			}
			h.must(0, "login", "--key-file", "other.pem")
			h.advance(13 * time.Hour)
			h.must(0, "token")
			if r := h.must(0, "key", "show"); !strings.Contains(r.stdout, "other.pem") {
				t.Error(r)
			}
		})
	}
}

// TestLoginThatDies: between any two steps of a login the session that is there
// has its key.
func TestLoginThatDies(t *testing.T) {
	h := newHome(t, nil)
	path := h.path("profiles", "default.json")
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	write := func(path string, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	decode := func() (p profile) {
		if err := json.Unmarshal(read(path), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	h.must(0, "login")
	session, before := read(h.path("sessions", "default.json")), decode()
	created := h.session(defaultProfile).Created
	h.must(0, "login", "--key-file", "other.pem")
	after := decode()
	if after.Pending != nil {
		t.Errorf("a finished login is pending: %+v", after)
	}
	between := before
	between.Pending = &pendingLogin{created, after}
	data, err := json.Marshal(between)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, key string) {
		t.Helper()
		h.advance(13 * time.Hour)
		if r := h.run("token"); r.code != 0 {
			t.Errorf("%s: %v", name, r)
		}
		if r := h.must(0, "key", "show"); !strings.Contains(r.stdout, key) {
			t.Errorf("%s: %v", name, r)
		}
	}
	write(path, data)
	check("before the profile is settled", "other.pem")
	write(path, data)
	write(h.path("sessions", "default.json"), session)
	check("before the session is saved", "default.pem")
	h.must(0, "logout")
	h.must(0, "login", "--key-file", "third.pem")
	check("after the next login", "third.pem")
}

// TestMovedDirectory: the directory of the program has no path in it.
func TestMovedDirectory(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	moved := filepath.Join(h.dir, "moved")
	if err := os.Rename(h.path(), moved); err != nil {
		t.Fatal(err)
	}
	h.env = append(h.env, "YCAUTH_CONFIG_DIR="+moved)
	h.advance(13 * time.Hour)
	h.must(0, "token")
	if r := h.must(0, "key", "show"); !strings.Contains(r.stdout, filepath.Join(moved, "keys", "default.pem")) {
		t.Error(r)
	}
}

// TestProfileThatIsNoFile: what stands in the place of a profile is neither waited for nor
// read without end, and the message says where it is.
func TestProfileThatIsNoFile(t *testing.T) {
	for _, tt := range []struct {
		name  string
		put   func(path string) error
		wants string
	}{
		{"pipe", func(path string) error { return syscall.Mkfifo(path, 0o600) }, "is not a regular file: move it away"},
		{"device", func(path string) error { return os.Symlink("/dev/zero", path) }, "is not a regular file: move it away"},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }, "is not a regular file: move it away"},
		{"huge", func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 2<<20)
		}, "is larger than 1 MiB"},
		{"another value", func(path string) error { return os.WriteFile(path, []byte("[]"), 0o600) }, "is not the configuration of a profile (unexpected array at byte "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, nil)
			h.must(0, "login")
			path := h.path("profiles", "default.json")
			if err := errors.Join(os.Remove(path), tt.put(path)); err != nil {
				t.Fatal(err)
			}
			for _, command := range []string{"status", "token", "logout", "login"} {
				r := h.run(command)
				if r.code != exitFailure || !strings.Contains(r.stderr, path+" ") || !strings.Contains(r.stderr, tt.wants) {
					t.Errorf("%s: %v, want %q", command, r, tt.wants)
				}
			}
		})
	}
}
