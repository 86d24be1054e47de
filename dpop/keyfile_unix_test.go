//go:build unix

package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A directory that is created is for the owner only, whatever the umask; one that
// exists stays as it is.
func TestKeyFileDirectoryMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	top := t.TempDir()
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := GenerateKeyFile(filepath.Join(top, "one", "two", "key.pem")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]fs.FileMode{top: 0o755, filepath.Join(top, "one"): 0o700, filepath.Join(top, "one", "two"): 0o700} {
		fi, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", dir, fi.Mode().Perm(), want)
		}
	}
}

// The system decides where link/.. is, which the text of the path does not say.
func TestKeyFileAboveALink(t *testing.T) {
	for _, below := range []string{"key.pem", "new/key.pem", "new/../key.pem"} {
		t.Run(below, func(t *testing.T) {
			top := t.TempDir()
			for _, dir := range []string{"data/current", "app"} {
				if err := os.MkdirAll(filepath.Join(top, dir), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(filepath.Join(top, "data", "current"), filepath.Join(top, "app", "link")); err != nil {
				t.Fatal(err)
			}
			path := top + "/app/link/../" + below
			key, err := LoadOrGenerateKeyFile(path)
			if err != nil {
				t.Fatal(err)
			}
			again, err := LoadOrGenerateKeyFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !key.Public().(*ecdsa.PublicKey).Equal(again.Public()) {
				t.Error("another key was loaded")
			}
			if _, err := os.Stat(filepath.Join(top, "data", filepath.FromSlash(below))); err != nil {
				t.Error(err)
			}
		})
	}
}

type ownedFile struct {
	fs.FileInfo
	sys any
}

func (f ownedFile) Sys() any { return f.sys }

func TestStrangerOf(t *testing.T) {
	for _, tt := range []struct {
		name      string
		owner, me int
		want      bool
	}{
		{"one's own", 1000, 1000, false},
		{"root's own", 0, 0, false},
		{"root's", 0, 1000, false},
		{"somebody's", 1001, 1000, true},
		{"somebody's, for root", 1000, 0, true},
		{"user 1's, for root", 1, 0, true},
	} {
		owner, stranger := strangerOf(ownedFile{sys: &syscall.Stat_t{Uid: uint32(tt.owner)}}, tt.me)
		if owner != tt.owner || stranger != tt.want {
			t.Errorf("%s: %d, %v", tt.name, owner, stranger)
		}
	}
	if _, stranger := strangerOf(ownedFile{}, 1000); stranger {
		t.Error("a file system without owners has strangers")
	}
}

// Root can read a file of anybody; nobody else gets as far as to ask for the owner.
func TestKeyFileOfSomebodyElse(t *testing.T) {
	path := writeKeyFile(t, pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p256Key()))))
	want := ""
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 65534, -1); err != nil {
			t.Fatal(err)
		}
		want = "belongs to user 65534, and this program runs as user 0"
	}
	for _, load := range []func(string) (crypto.Signer, error){LoadKeyFile, LoadOrGenerateKeyFile} {
		_, err := load(path)
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestKeyFileMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "key.pem")
	if _, err := GenerateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600 with any umask", fi.Mode())
	}
	for mode, ok := range map[fs.FileMode]bool{
		0o600: true, 0o400: true, 0o700: true,
		0o640: false, 0o604: false, 0o620: false, 0o602: false, 0o610: false, 0o601: false, 0o644: false, 0o666: false, 0o777: false,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		for _, load := range []func(string) (crypto.Signer, error){LoadKeyFile, LoadOrGenerateKeyFile} {
			_, err := load(path)
			var kfe *KeyFileError
			switch {
			case ok && err != nil:
				t.Errorf("mode %v: %v", mode, err)
			case !ok && (!errors.As(err, &kfe) || !strings.Contains(err.Error(), "chmod 600")):
				t.Errorf("mode %v: %v, want the remedy", mode, err)
			}
		}
	}
}

// A file that others can read is refused before anybody looks into it.
func TestKeyFileModeBeforeContent(t *testing.T) {
	path := writeKeyFile(t, []byte("no key"))
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeyFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("LoadKeyFile: %v", err)
	}
}

func TestKeyFileLinks(t *testing.T) {
	dir := t.TempDir()
	target, link, dangling, loop := filepath.Join(dir, "target"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "loop")
	key, err := GenerateKeyFile(target)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range [][2]string{{"target", link}, {"none", dangling}, {"loop", loop}} {
		if err := os.Symlink(l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadKeyFile(link) // secrets are often mounted as links
	if err != nil {
		t.Fatal(err)
	}
	if !samePublicKey(got.Public(), key.Public()) {
		t.Error("another key through the link")
	}
	if err := os.Chmod(target, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeyFile(link); err == nil || !strings.Contains(err.Error(), "mode 0644") {
		t.Errorf("through a link to an exposed file: %v", err)
	}
	for name, tt := range map[string]struct {
		f    func(string) (crypto.Signer, error)
		want error
	}{
		"Load": {LoadKeyFile, fs.ErrNotExist}, "LoadOrGenerate": {LoadOrGenerateKeyFile, fs.ErrNotExist}, "Generate": {GenerateKeyFile, fs.ErrExist},
	} {
		key, err := tt.f(dangling)
		var kfe *KeyFileError
		if key != nil || !errors.Is(err, tt.want) || !errors.As(err, &kfe) || kfe.Path != dangling ||
			!strings.Contains(kfe.Reason, `symbolic link to "none", which does not exist`) {
			t.Errorf("%s through a link to nothing: %v, %v", name, key, err)
		}
	}
	if _, err := LoadKeyFile(loop); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("through a loop: %v", err)
	}
	folder(t, dir, "dangling", "link", "loop", "target")
}

// A crash while the key was written can leave it under a second name, where
// removing the file would not remove the key.
func TestKeyFileLeftBehind(t *testing.T) {
	for _, through := range []bool{false, true} {
		testKeyFileLeftBehind(t, through)
	}
}

func testKeyFileLeftBehind(t *testing.T, through bool) {
	for name, load := range map[string]func(string) (crypto.Signer, error){"Load": LoadKeyFile, "LoadOrGenerate": LoadOrGenerateKeyFile} {
		t.Run(fmt.Sprintf("%s/link=%v", name, through), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "key.pem")
			if _, err := GenerateKeyFile(path); err != nil {
				t.Fatal(err)
			}
			for _, left := range []string{".key.pem.tmp-123456789", "backup.pem"} {
				if err := os.Link(path, filepath.Join(dir, left)); err != nil {
					t.Fatal(err)
				}
			}
			given := path
			if through {
				given = filepath.Join(t.TempDir(), "link.pem")
				if err := os.Symlink(path, given); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := load(given); err != nil {
				t.Fatal(err)
			}
			folder(t, dir, "backup.pem", "key.pem") // a name that was chosen stays
		})
	}
}

// What is not a file must not be waited for.
func TestKeyFileIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo, sock := filepath.Join(dir, "fifo"), filepath.Join(dir, "s")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, path := range []string{fifo, sock, "/dev/zero", dir} {
		done := make(chan error, 1)
		go func() {
			_, err := LoadKeyFile(path)
			done <- err
		}()
		select {
		case err := <-done:
			var kfe *KeyFileError
			if !errors.As(err, &kfe) {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: still waiting", path)
		}
	}
}

// A file of any size is refused by its size, not read.
func TestKeyFileHuge(t *testing.T) {
	path := writeKeyFile(t, nil)
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeyFile(path); err == nil || !strings.Contains(err.Error(), "larger than 64 KiB") {
		t.Errorf("LoadKeyFile: %v", err)
	}
}
