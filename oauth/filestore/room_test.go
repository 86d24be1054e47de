package filestore_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// Where the next session has no room, fn is not called, and nothing changes:
// neither the session nor what is known of an earlier Update.
func TestNoRoom(t *testing.T) {
	why := errors.New("no space left on device")
	for _, kind := range []durable.OpKind{durable.Probe, durable.Truncate, durable.Reserve} {
		for name, interrupted := range map[string]bool{"first": false, "after an interruption": true} {
			t.Run(string(kind)+", "+name, func(t *testing.T) {
				s := filled(t)
				begun := time.Now().Add(-time.Hour).Truncate(time.Second)
				if interrupted {
					if err := errors.Join(os.WriteFile(next(s), nil, 0o600), os.Chtimes(next(s), begun, begun)); err != nil {
						t.Fatal(err)
					}
				}
				restore := durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
					if op.Kind == kind {
						return why
					}
					return nil
				}})
				err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
					t.Error("Update called fn")
					return session(2), nil
				})
				restore()
				var e *filestore.Error
				if !errors.As(err, &e) || !errors.Is(err, why) || e.Path != next(s) {
					t.Errorf("got %v, want a *filestore.Error about %s", err, next(s))
				}
				fi, err := os.Stat(next(s))
				if left := !errors.Is(err, fs.ErrNotExist); left != interrupted || left && !fi.ModTime().Equal(begun) {
					t.Errorf("the next file: %v, %v", fi, err)
				}
				err = s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
					since, ok := s.Interrupted()
					if current.Generation != 1 || ok != interrupted || ok && !since.Equal(begun) {
						t.Errorf("with room: generation %d, interrupted %v since %v", current.Generation, ok, since)
					}
					return session(2), nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}
