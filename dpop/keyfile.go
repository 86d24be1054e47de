package dpop

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ycauth/ycauth-go/internal/durable"
)

// maxKeyFile is more than an RSA key of 16384 bits needs, in bytes.
const maxKeyFile = 64 << 10

// A KeyFileError says why a key file cannot be used, and what to do. It never
// contains content of the file.
type KeyFileError struct {
	Path   string // as it was given
	Reason string // for people: what is wrong, and what helps
	Err    error  // the cause, for instance [fs.ErrNotExist], or nil
}

// Error returns one line with the path, the reason and the cause.
func (e *KeyFileError) Error() string {
	s := fmt.Sprintf("dpop: key file %q: %s", e.Path, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *KeyFileError) Unwrap() error { return e.Err }

// GenerateKeyFile generates a P-256 key and writes it to a new file, as PKCS#8
// (RFC 5958) in PEM (RFC 7468), readable by the owner only (0600; on Windows the
// access control list of the directory applies). It creates a missing directory,
// for the owner only (0700). The file appears complete, and is on disk when
// GenerateKeyFile returns.
//
// It never overwrites a file, nor writes through a symbolic link: if path exists,
// the error matches [fs.ErrExist]. Errors are of type [*KeyFileError].
func GenerateKeyFile(path string) (crypto.Signer, error) {
	if !namesFile(path) {
		return nil, &KeyFileError{Path: path, Reason: "it names a directory: add the name of a file to it"}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, &KeyFileError{path, "cannot generate a key", err}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, &KeyFileError{path, "cannot encode the key", err}
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	dir, _ := filepath.Split(path) // not Dir, which takes link/.. away without following the link
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, &KeyFileError{path, "cannot create its directory", withoutPath(err)}
	}
	if err := durable.Create(path, data, 0o600); err != nil {
		if errors.Is(err, fs.ErrExist) {
			if reason := dangling(path); reason != "" {
				return nil, &KeyFileError{path, reason, fs.ErrExist}
			}
			return nil, &KeyFileError{path, "already exists and is not overwritten: load it, or remove it if no session needs its key", fs.ErrExist}
		}
		return nil, &KeyFileError{path, "cannot write", err}
	}
	return key, nil
}

// LoadKeyFile reads a private key in PEM (RFC 7468): PKCS#8 ("PRIVATE KEY"), SEC
// 1 ("EC PRIVATE KEY") or PKCS#1 ("RSA PRIVATE KEY"), not encrypted, one to a
// file of at most 64 KiB, which may begin with a byte order mark of UTF-8 and have line
// ends of CR LF. The key must fit [New]. Symbolic links are followed.
//
// On Unix a file that its group or others can access is rejected, because
// its key may have been copied already. A file of a user other than that of the
// process or root is rejected too, because its owner has the key and could replace it.
// Errors are of type [*KeyFileError]; if there is no file, the error matches
// [fs.ErrNotExist].
//
// A crash of [GenerateKeyFile] can leave a second, temporary name of the file.
// LoadKeyFile removes that.
func LoadKeyFile(path string) (crypto.Signer, error) {
	data, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	key, reason := parseKey(data)
	if reason != "" {
		return nil, &KeyFileError{Path: path, Reason: reason}
	}
	if _, err := algorithmFor(key.Public(), ""); err != nil {
		return nil, &KeyFileError{path, "the key does not fit DPoP", err}
	}
	return key, nil
}

// LoadOrGenerateKeyFile calls [LoadKeyFile], or [GenerateKeyFile] if there is no file
// yet. Concurrent processes get the same key. If the file cannot be used, or is a
// dangling symbolic link, it is left unchanged, and the error is that of LoadKeyFile.
//
// On a file system without hard links (FAT, some network file systems) the file
// is not created atomically, and a concurrent process
// can get an error.
func LoadOrGenerateKeyFile(path string) (crypto.Signer, error) {
	key, err := LoadKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, err = GenerateKeyFile(path)
	if errors.Is(err, fs.ErrExist) {
		return LoadKeyFile(path) // somebody was faster, and wrote it whole
	}
	return key, err
}

// namesFile reports whether path can be that of a new file: to create the directory of
// one that cannot would leave a directory by the name of the file.
func namesFile(path string) bool {
	if path == "" || os.IsPathSeparator(path[len(path)-1]) {
		return false
	}
	base := filepath.Base(path)
	return base != "." && base != ".."
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		reason := "cannot open"
		if link := dangling(path); link != "" {
			reason = link
		}
		return nil, &KeyFileError{path, reason, withoutPath(err)}
	}
	defer f.Close()
	// The open file is checked, not the name, which could refer to another file later.
	fi, err := f.Stat()
	if err != nil {
		return nil, &KeyFileError{path, "cannot be checked", err}
	}
	me := os.Geteuid()
	owner, stranger := strangerOf(fi, me)
	switch {
	case !fi.Mode().IsRegular():
		return nil, &KeyFileError{Path: path, Reason: "not a regular file"}
	case stranger:
		return nil, &KeyFileError{Path: path, Reason: fmt.Sprintf(
			"it belongs to user %d, and this program runs as user %d: run it as its owner, or use a key of your own", owner, me)}
	case exposed(fi.Mode()):
		return nil, &KeyFileError{Path: path, Reason: fmt.Sprintf(
			"users other than its owner can access it (mode %04o): run chmod 600, and create a new key if this one may have been copied", fi.Mode().Perm())}
	case fi.Size() > maxKeyFile:
		return nil, &KeyFileError{Path: path, Reason: "larger than 64 KiB, so not a key file"}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, &KeyFileError{path, "cannot read", err}
	}
	// A key that a crash of GenerateKeyFile left a second time is beside the file itself.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		durable.Tidy(target, fi)
	}
	return data, nil
}

// dangling is the reason why path cannot be used if it is a symbolic link that leads to
// nothing, or else "".
func dangling(path string) (reason string) {
	target, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return fmt.Sprintf("it is a symbolic link to %q, which does not exist: remove the link, or generate the key there", target)
}

// withoutPath drops the path, which is in KeyFileError already.
func withoutPath(err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// parseKey returns the key, or the reason why there is none. The errors of the
// parsers are left out on purpose: they can quote what they parsed.
func parseKey(data []byte) (crypto.Signer, string) {
	// Editors of Windows put a byte order mark first, before which no line begins.
	block, _ := pem.Decode(bytes.TrimPrefix(data, []byte("\ufeff")))
	// Not counted by pem.Decode, which passes over a damaged block.
	blocks := bytes.Count(data, []byte("-----BEGIN "))
	switch {
	case blocks > 1:
		return nil, "more than one PEM block in it: keep one private key and nothing else in a file (openssl ecparam needs -noout)"
	case block == nil && blocks == 1:
		return nil, "the PEM block in it is damaged: restore the file as it was generated"
	case block == nil:
		return nil, "no PEM block in it: expected -----BEGIN PRIVATE KEY-----; restore the file, or remove it to have a new key generated, which needs a new login"
	}
	var key any
	var err error
	if block.Headers["DEK-Info"] != "" { // RFC 1421 §4.6.1.3, as OpenSSL used it
		block.Type = "ENCRYPTED PRIVATE KEY"
	}
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, "the key is encrypted: decrypt it (openssl pkey), or keep the key on a YubiKey"
	case "OPENSSH PRIVATE KEY":
		return nil, "the key has OpenSSH's own format: convert it (ssh-keygen -p -m PKCS8), or generate a key for DPoP alone"
	case "PUBLIC KEY", "CERTIFICATE", "RSA PUBLIC KEY", "CERTIFICATE REQUEST":
		return nil, "it holds a " + block.Type + ", not a private key: name the file with the key, or restore it"
	default:
		return nil, "its PEM block is not a private key: expected -----BEGIN PRIVATE KEY-----; name the file with the key, or restore it"
	}
	if err != nil {
		return nil, "the private key in it is damaged or of an unknown kind: restore the file as it was generated"
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Sprintf("a key of type %T cannot sign", key)
	}
	return signer, ""
}
