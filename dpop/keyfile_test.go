package dpop

import (
	"bufio"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

func thumbprintOf(tb testing.TB, key crypto.Signer) string {
	tb.Helper()
	s, err := newProver(tb, key).Thumbprint(crypto.SHA256)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func folder(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the folder holds %v, want %v", got, want)
	}
}

func TestGenerateKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.pem")
	key, err := GenerateKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if pub, ok := key.Public().(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		t.Errorf("the key is a %T", key.Public())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(block.Headers) != 0 || len(rest) != 0 {
		t.Fatalf("not one plain PEM block")
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		t.Error(err)
	}
	for name, load := range map[string]func(string) (crypto.Signer, error){"Load": LoadKeyFile, "LoadOrGenerate": LoadOrGenerateKeyFile} {
		again, err := load(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !samePublicKey(again.Public(), key.Public()) {
			t.Errorf("%s: another key", name)
		}
	}

	key, err = GenerateKeyFile(path)
	var kfe *KeyFileError
	if key != nil || !errors.Is(err, fs.ErrExist) || !errors.As(err, &kfe) || kfe.Path != path {
		t.Errorf("over a key: %v, %v", key, err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(data) {
		t.Errorf("the file has changed: %v", err)
	}
	folder(t, dir, "key.pem")
}

// The first key of a program is often the first file in its directory.
func TestKeyFileDirectory(t *testing.T) {
	for name, f := range map[string]func(string) (crypto.Signer, error){"Generate": GenerateKeyFile, "LoadOrGenerate": LoadOrGenerateKeyFile} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			path := filepath.Join(top, "one", "two", "key.pem")
			key, err := f(path)
			if err != nil {
				t.Fatal(err)
			}
			again, err := LoadKeyFile(path)
			if err != nil || !samePublicKey(again.Public(), key.Public()) {
				t.Errorf("LoadKeyFile: %v", err)
			}
			t.Chdir(filepath.Join(top, "one"))
			if _, err := f("bare.pem"); err != nil {
				t.Errorf("in the working directory: %v", err)
			}
			folder(t, filepath.Join(top, "one"), "bare.pem", "two")

			_, err = f(filepath.Join(path, "under", "a", "file"))
			var kfe *KeyFileError
			if !errors.As(err, &kfe) || strings.Count(err.Error(), path) != 1 {
				t.Errorf("below a file: %v", err)
			}
		})
	}
}

// A path that can be no file's is rejected before anything is created.
func TestKeyFilePathOfADirectory(t *testing.T) {
	for name, f := range map[string]func(string) (crypto.Signer, error){"GenerateKeyFile": GenerateKeyFile, "LoadOrGenerateKeyFile": LoadOrGenerateKeyFile} {
		for _, end := range []string{"x/", "x//", "x/y/", "x/.", "x/.."} {
			t.Run(name+"/"+end, func(t *testing.T) {
				top := t.TempDir()
				key, err := f(top + string(filepath.Separator) + filepath.FromSlash(end))
				var kfe *KeyFileError
				if key != nil || !errors.As(err, &kfe) || !strings.Contains(kfe.Reason, "directory") {
					t.Errorf("%v, %v", key, err)
				}
				folder(t, top)
			})
		}
		t.Run(name+"/empty", func(t *testing.T) {
			t.Chdir(t.TempDir())
			var kfe *KeyFileError
			if key, err := f(""); key != nil || !errors.As(err, &kfe) {
				t.Errorf("%v, %v", key, err)
			}
			folder(t, ".")
		})
	}
}

// To look for a key creates nothing.
func TestLoadKeyFileWithoutDirectory(t *testing.T) {
	top := t.TempDir()
	if _, err := LoadKeyFile(filepath.Join(top, "none", "key.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadKeyFile: %v", err)
	}
	folder(t, top)
}

func TestLoadKeyFileWithoutFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	key, err := LoadKeyFile(path)
	var kfe *KeyFileError
	if key != nil || !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &kfe) || kfe.Path != path {
		t.Fatalf("LoadKeyFile: %v, %v", key, err)
	}
	if strings.Count(err.Error(), path) != 1 {
		t.Errorf("the path should be in the error once: %v", err)
	}
	folder(t, filepath.Dir(path))
}

func writeKeyFile(tb testing.TB, data []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "key.pem")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Every kind of key in every form that it has.
func TestLoadKeyFileFormats(t *testing.T) {
	files := map[string][]byte{}
	keys := map[string]crypto.Signer{}
	add := func(name string, key crypto.Signer, data []byte) { files[name], keys[name] = data, key }
	for _, tt := range algorithms {
		add(tt.name+" in PKCS #8", tt.key(), pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(tt.key()))))
		switch key := tt.key().(type) {
		case *ecdsa.PrivateKey:
			add(tt.name+" in SEC 1", key, pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key))))
		case *rsa.PrivateKey:
			add(tt.name+" in PKCS #1", key, pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)))
		}
	}
	plain := files["P-256 in PKCS #8"]
	add("text around", p256Key(), []byte("a key\n"+string(plain)+"\nof mine\n"))
	add("CR LF", p256Key(), []byte(strings.ReplaceAll(string(plain), "\n", "\r\n")))
	add("byte order mark", p256Key(), append([]byte("\ufeff"), plain...))
	add("byte order mark and CR LF", p256Key(), []byte("\ufeff"+strings.ReplaceAll(string(plain), "\n", "\r\n")))
	add("no line break at the end", p256Key(), []byte(strings.TrimSuffix(string(plain), "\n")))
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			key, err := LoadKeyFile(writeKeyFile(t, data))
			if err != nil {
				t.Fatal(err)
			}
			if !samePublicKey(key.Public(), keys[name].Public()) {
				t.Error("another key")
			}
			makeProof(t, newProver(t, key), Claims{})
		})
	}
}

// badKeyFiles holds what LoadKeyFile has to refuse, and a part of the reason.
func badKeyFiles() map[string]struct {
	data []byte
	want string
} {
	type file = struct {
		data []byte
		want string
	}
	plain := pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p256Key())))
	der := must(x509.MarshalPKCS8PrivateKey(p256Key()))
	sec1 := must(x509.MarshalECPrivateKey(p256Key().(*ecdsa.PrivateKey)))
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	x25519 := must(ecdh.X25519().GenerateKey(rand.Reader))
	encrypted := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,0123456789ABCDEF0123456789ABCDEF"}, Bytes: der})
	}
	return map[string]file{
		"empty":                            {nil, "no PEM block"},
		"spaces":                           {[]byte(" \n\n"), "no PEM block"},
		"text":                             {[]byte("hunter2hunter2hunter2"), "no PEM block"},
		"DER":                              {der, "no PEM block"},
		"JWK":                              {[]byte(rfcP256Key), "no PEM block"},
		"cut before the end line":          {plain[:len(plain)-20], "the PEM block in it is damaged"},
		"cut in the middle":                {plain[:100], "the PEM block in it is damaged"},
		"broken base64":                    {[]byte(strings.Replace(string(plain), "M", "!", 1)), "the PEM block in it is damaged"},
		"end line of another kind":         {[]byte(strings.Replace(string(plain), "END PRIVATE", "END EC PRIVATE", 1)), "the PEM block in it is damaged"},
		"a broken key and another":         {append([]byte(strings.Replace(string(plain), "M", "!", 1)), plain...), "more than one"},
		"a key and a broken one":           {append(append([]byte{}, plain...), plain[:100]...), "more than one"},
		"two keys":                         {append(append([]byte{}, plain...), plain...), "more than one"},
		"key and certificate":              {append(append([]byte{}, plain...), pemOf("CERTIFICATE", der)...), "more than one"},
		"openssl ecparam":                  {append(pemOf("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}), pemOf("EC PRIVATE KEY", sec1)...), "-noout"},
		"encrypted PKCS #8":                {pemOf("ENCRYPTED PRIVATE KEY", der), "encrypted"},
		"encrypted SEC 1":                  {encrypted("EC PRIVATE KEY", []byte("hunter2hunter2hunter2hunter2!!!!")), "encrypted"},
		"encrypted PKCS #1":                {encrypted("RSA PRIVATE KEY", []byte("hunter2hunter2hunter2hunter2!!!!")), "encrypted"},
		"encrypted, with a readable inner": {encrypted("EC PRIVATE KEY", sec1), "encrypted"},
		"OpenSSH":                          {pemOf("OPENSSH PRIVATE KEY", []byte("openssh-key-v1\x00")), "ssh-keygen"},
		"public key":                       {pemOf("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(p256Key().Public()))), "PUBLIC KEY, not a private key"},
		"certificate":                      {pemOf("CERTIFICATE", der), "CERTIFICATE, not a private key"},
		"certificate request":              {pemOf("CERTIFICATE REQUEST", der), "CERTIFICATE REQUEST, not"},
		"PKCS #1 public key":               {pemOf("RSA PUBLIC KEY", der), "RSA PUBLIC KEY, not"},
		"PGP":                              {pemOf("PGP PRIVATE KEY BLOCK", der), "not a private key"},
		"damaged PKCS #8":                  {pemOf("PRIVATE KEY", der[:len(der)-5]), "damaged"},
		"empty PKCS #8":                    {pemOf("PRIVATE KEY", nil), "damaged"},
		"damaged SEC 1":                    {pemOf("EC PRIVATE KEY", sec1[:20]), "damaged"},
		"PKCS #8 labelled SEC 1":           {pemOf("EC PRIVATE KEY", der), "damaged"},
		"damaged PKCS #1":                  {pemOf("RSA PRIVATE KEY", []byte("hunter2hunter2")), "damaged"},
		"DSA":                              {pemOf("PRIVATE KEY", dsaPKCS8()), "unknown kind"},
		"X25519":                           {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(x25519))), "cannot sign"},
		"P-224":                            {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p224))), "P-224"},
		"RSA of 1024 bits":                 {pemOf("RSA PRIVATE KEY", rsa1024PKCS1()), "1024 bits: at least 2048"},
		"larger than 64 KiB":               {append(append([]byte{}, plain...), strings.Repeat("\n", maxKeyFile)...), "larger than 64 KiB"},
	}
}

// dsaPKCS8 is a toy key of a kind that crypto/x509 does not know (RFC 3279 §2.3.2).
func dsaPKCS8() []byte {
	type algorithm struct {
		OID    asn1.ObjectIdentifier
		Params struct{ P, Q, G *big.Int }
	}
	alg := algorithm{OID: asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}}
	alg.Params.P, alg.Params.Q, alg.Params.G = big.NewInt(23), big.NewInt(11), big.NewInt(4)
	return must(asn1.Marshal(struct {
		Version   int
		Algorithm algorithm
		Key       []byte
	}{0, alg, must(asn1.Marshal(big.NewInt(3)))}))
}

var rsa1024PKCS1 = sync.OnceValue(func() []byte {
	return x509.MarshalPKCS1PrivateKey(must(rsa.GenerateKey(rand.Reader, 1024)))
})

func TestLoadKeyFileRefuses(t *testing.T) {
	for name, tt := range badKeyFiles() {
		t.Run(name, func(t *testing.T) {
			path := writeKeyFile(t, tt.data)
			for _, load := range []func(string) (crypto.Signer, error){LoadKeyFile, LoadOrGenerateKeyFile} {
				key, err := load(path)
				var kfe *KeyFileError
				if key != nil || !errors.As(err, &kfe) || kfe.Path != path {
					t.Fatalf("%v, %v", key, err)
				}
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %q, want %q in it", err, tt.want)
				}
				holdsNothingOf(t, err.Error(), tt.data)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != string(tt.data) {
				t.Errorf("the file was changed: %v", err)
			}
			folder(t, filepath.Dir(path), "key.pem")
		})
	}
}

var encoded = regexp.MustCompile(`[A-Za-z0-9+/=]{12,}`)

// holdsNothingOf fails the test if text repeats a run of what could be key
// material, encoded or decoded.
func holdsNothingOf(t *testing.T, text string, data []byte) {
	t.Helper()
	for _, run := range encoded.FindAllString(string(data), -1) {
		for i := 0; i+12 <= len(run); i++ {
			if strings.Contains(text, run[i:i+12]) {
				t.Fatalf("the error %q holds a part of the file", text)
			}
		}
	}
	if block, _ := pem.Decode(data); block != nil {
		for i := 0; i+12 <= len(block.Bytes); i++ {
			if strings.Contains(text, string(block.Bytes[i:i+12])) {
				t.Fatalf("the error %q holds a part of the key", text)
			}
		}
	}
}

func TestLoadKeyFileOfAFolder(t *testing.T) {
	dir := t.TempDir()
	for _, load := range []func(string) (crypto.Signer, error){LoadKeyFile, LoadOrGenerateKeyFile} {
		key, err := load(dir)
		var kfe *KeyFileError
		if key != nil || !errors.As(err, &kfe) {
			t.Errorf("%v, %v", key, err)
		}
	}
	if _, err := GenerateKeyFile(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("GenerateKeyFile: %v", err)
	}
}

// Of many goroutines all get one key, and nobody reads a part of it.
func TestLoadOrGenerateRace(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "key.pem")
		const racers = 16
		prints := make([]string, racers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range racers {
			wg.Go(func() {
				<-start
				key, err := LoadOrGenerateKeyFile(path)
				if err != nil {
					t.Error(err)
					return
				}
				prints[i] = thumbprintOf(t, key)
			})
		}
		close(start)
		wg.Wait()
		for _, p := range prints {
			if p != prints[0] || p == "" {
				t.Fatalf("several keys: %q", prints)
			}
		}
		folder(t, filepath.Dir(path), "key.pem")
	}
}

// keyFileChildEnv makes the test binary one of the racing processes.
const keyFileChildEnv = "YCAUTH_TEST_KEY_FILE"

func keyFileChild(path string) int {
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the parent closes it
		fmt.Println(err)
		return 1
	}
	key, err := LoadOrGenerateKeyFile(path)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	jwk := must(New(key)).JWK()
	fmt.Println(base64.RawURLEncoding.EncodeToString(must(jwk.Thumbprint(crypto.SHA256))))
	return 0
}

// Of many processes all get one key.
func TestLoadOrGenerateProcesses(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		path := filepath.Join(t.TempDir(), "key.pem")
		const racers = 8
		var outs []*bufio.Reader
		var gates []io.Closer
		var cmds []*exec.Cmd
		for range racers {
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), keyFileChildEnv+"="+path)
			cmd.Stderr = os.Stderr
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmds, gates, outs = append(cmds, cmd), append(gates, in), append(outs, bufio.NewReader(out))
		}
		for _, out := range outs {
			if line, err := out.ReadString('\n'); line != "ready\n" {
				t.Errorf("a process says %q, %v", line, err)
			}
		}
		for _, gate := range gates {
			gate.Close()
		}
		var first string
		for i, cmd := range cmds {
			line, _ := outs[i].ReadString('\n')
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, line)
			}
			if first == "" {
				first = line
			}
			if line != first {
				t.Errorf("two keys: %s%s", first, line)
			}
		}
		key, err := LoadKeyFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := thumbprintOf(t, key) + "\n"; got != first {
			t.Errorf("the file has the key %sthe processes have %s", got, first)
		}
		folder(t, filepath.Dir(path), "key.pem")
	}
}

// FuzzKeyFile: a file gives a key that makes proofs, or a reason that repeats
// nothing of the file.
func FuzzKeyFile(f *testing.F) {
	for _, tt := range badKeyFiles() {
		if len(tt.data) < 4096 {
			f.Add(tt.data)
		}
	}
	f.Add(pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(edKey()))))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, reason := parseKey(data)
		if (key == nil) == (reason == "") {
			t.Fatalf("parseKey: %T, %q", key, reason)
		}
		if reason != "" {
			holdsNothingOf(t, reason, data)
			return
		}
		p, err := New(key)
		if err != nil {
			holdsNothingOf(t, err.Error(), data)
			return
		}
		if _, err := p.Proof(t.Context(), Claims{Method: "POST", URL: tokenURL}); err != nil {
			t.Fatal(err)
		}
	})
}
