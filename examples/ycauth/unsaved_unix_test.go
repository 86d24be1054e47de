//go:build unix

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// TestUnsavedRenewal: a script learns that the session is lost, although it got
// its token.
func TestUnsavedRenewal(t *testing.T) {
	for _, tt := range []struct {
		name     string
		rotation func(*iamtest.Options)
		command  string
		code     int
		want     string
	}{
		{"new refresh token", nil, "token", exitLogin, `the session is lost when this command ends`},
		{"for kubectl, which drops the token of a plugin that fails", nil, "kube-credential", exitOK, `log in again with "ycauth login"`},
		{"same refresh token", func(o *iamtest.Options) { o.Rotation = iamtest.RotateNever }, "token", exitOK, "the next command renews it again"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, tt.rotation)
			h.must(0, "login")
			h.advance(13 * time.Hour)
			h.env = append(h.env, "TEST_FULL_DISK=1")
			r := h.must(tt.code, tt.command)
			if !strings.Contains(r.stdout, "t1.") || !strings.Contains(r.stderr, tt.want) || !strings.Contains(r.stderr, "no space left") {
				t.Error(r)
			}
		})
	}
}

// TestWaitingIsSaid: a command that hangs behind another process says so.
func TestWaitingIsSaid(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	h.advance(13 * time.Hour)
	store, err := filestore.New(h.path("sessions"), defaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan result, 1)
	err = store.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
		go func() { ended <- h.run("token") }()
		time.Sleep(4 * time.Second)
		return current, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.code != 0 || !strings.Contains(r.stderr, `Waiting for another process that uses the session of profile "default"`) {
		t.Error(r)
	}
}

// TestLeftovers: what a killed process left beside the profile goes with the next
// write.
func TestLeftovers(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	left, other := h.path("profiles", ".default.json.tmp-123"), h.path("profiles", ".work.json.tmp-123")
	for _, path := range []string{left, other} {
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.must(0, "login")
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("that of another profile is gone: %v", err)
	}
}
