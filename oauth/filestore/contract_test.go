package filestore_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/durable/powerloss"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

var subject = storetest.Subject{
	Name:      "filestore",
	Open:      func(place string) (oauth.Store, error) { return filestore.New(place, "default") },
	Break:     breakDisk,
	PowerLoss: losePower,
}

var sealed = storetest.Subject{
	Name: "sealed filestore",
	Open: func(place string) (oauth.Store, error) {
		return filestore.New(place, "default", filestore.WithSeal(aead(1)))
	},
	Break:     breakDisk,
	PowerLoss: losePower,
}

// breakDisk makes every write of this process fail.
func breakDisk(*testing.T, string) (mend func()) {
	return durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
		if op.Kind == durable.Write {
			return errors.New("the disk is full")
		}
		return nil
	}})
}

// losePower simulates it.
func losePower(t *testing.T, place string) (cut func() string) {
	t.Helper()
	disk, stop, err := powerloss.Watch(place)
	if err != nil {
		t.Fatal(err)
	}
	return func() string {
		stop()
		left := filepath.Join(t.TempDir(), "left")
		if err := disk.Crash(disk.Steps(), rand.New(rand.NewPCG(rand.Uint64(), 0)), left); err != nil {
			t.Fatal(err)
		}
		return left
	}
}

func TestMain(m *testing.M) {
	storetest.Child(subject, sealed)
	os.Exit(m.Run())
}

func TestContract(t *testing.T) { storetest.Run(t, subject) }

func TestContractSealed(t *testing.T) { storetest.Run(t, sealed) }
