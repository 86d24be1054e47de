package filestore_test

import (
	"path/filepath"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

func benchmarkUpdate(b *testing.B, next func(uint64) oauth.Session) {
	b.Helper()
	s, err := filestore.New(filepath.Join(b.TempDir(), "sessions"), "default")
	if err != nil {
		b.Fatal(err)
	}
	generation := uint64(0)
	for b.Loop() {
		generation++
		err := s.Update(b.Context(), func(oauth.Session) (oauth.Session, error) { return next(generation), nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpdate writes each time.
func BenchmarkUpdate(b *testing.B) { benchmarkUpdate(b, session) }

// BenchmarkUpdateUnchanged writes once.
func BenchmarkUpdateUnchanged(b *testing.B) {
	benchmarkUpdate(b, func(uint64) oauth.Session { return session(1) })
}

func BenchmarkLoad(b *testing.B) {
	s, err := filestore.New(filepath.Join(b.TempDir(), "sessions"), "default")
	if err != nil {
		b.Fatal(err)
	}
	err = s.Update(b.Context(), func(oauth.Session) (oauth.Session, error) { return session(1), nil })
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
