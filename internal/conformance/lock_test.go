package conformance

import (
	"encoding/json"
	"os"
	"testing"
)

// The lock file pins every package by its hash and leaves open which registry
// serves it.
func TestLockFile(t *testing.T) {
	data, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct{ Version, Resolved, Integrity string }
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		t.Fatal(err)
	}
	if len(lock.Packages) < 2 {
		t.Fatalf("%d packages are locked", len(lock.Packages))
	}
	for name, p := range lock.Packages {
		if name == "" {
			continue // ourselves
		}
		if p.Version == "" || p.Integrity == "" {
			t.Errorf("%s: version %q, integrity %q", name, p.Version, p.Integrity)
		}
		if p.Resolved != "" {
			t.Errorf("%s has a download address: install with the .npmrc of this folder", name)
		}
	}
}
