package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestStoreFlags: mistakes are named by their flags, and a password is in no text.
func TestStoreFlags(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "dpop.pem")
	common := []string{"-login", "-key", key}
	for _, tt := range []struct {
		name  string
		store string
		args  []string
		want  string
	}{
		{"with files", "postgres://app@db/app", []string{"-sessions", dir}, "leave out -store or -sessions"},
		{"in a demonstration", "postgres://app@db/app", []string{"-demo"}, "leave out -store"},
		{"a key without a database", "", []string{"-seal-key", key}, "-seal-key is for -store"},
		{"not a URL", "host=db password=s3cret", nil, "-store is not the URL"},
		{"another scheme", "mysql://app:s3cret@db/app", nil, "-store is not the URL"},
		{"a password with a slash", "postgres://app:s3cret/x@db/app", nil, "must be escaped"},
		{"a password with a percent sign", "postgres://app:s3cret%@db/app", nil, "must be escaped"},
		{"a wrong parameter", "postgres://app@db/app?sslmode=perhaps", nil, "-store cannot be used: sslmode is invalid"},
		{"a wrong parameter and a password", "postgres://app:s3cret@db/app?sslmode=perhaps", nil, "-store cannot be used: one of its parameters is wrong"},
		{"a wrong parameter and a password in the query", "postgres://app@db/app?sslmode=perhaps&pass%77ord=s3cret", nil, "-store cannot be used"},
		{"a wrong pool", "postgres://app:s3cret@db/app?pool_max_conns=s3cret", nil, "-store cannot be used"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			environment := map[string]string{"SERVICE_STORE": tt.store}
			var stderr bytes.Buffer
			cfg, err := parseConfig(append(common, tt.args...), func(name string) string { return environment[name] }, &stderr)
			if err == nil {
				_, err = cfg.openStore()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error()+stderr.String(), "s3cret") {
				t.Errorf("the password is in %v\n%s", err, stderr.String())
			}
		})
	}
}

func TestHelpHasNoPassword(t *testing.T) {
	environment := map[string]string{"SERVICE_STORE": "postgres://app:s3cret@db/app"}
	var stderr bytes.Buffer
	_, err := parseConfig([]string{"-help"}, func(name string) string { return environment[name] }, &stderr)
	if !errors.Is(err, flag.ErrHelp) || !strings.Contains(stderr.String(), "-store") || strings.Contains(stderr.String(), "s3cret") {
		t.Errorf("%v\n%s", err, stderr.String())
	}
}

// A database needs no directory of the user, where a service often has none.
func TestStoreWithoutHome(t *testing.T) {
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "AppData"} {
		t.Setenv(name, "")
	}
	none := func(string) string { return "" }
	args := []string{"-store", "postgres://app@db/app", "-api", "https://api.example"}
	if _, err := parseConfig(args, none, io.Discard); err == nil || !strings.Contains(err.Error(), "-key") {
		t.Errorf("%v, which does not name -key", err)
	}
	cfg, err := parseConfig(append(args, "-key", "/run/secrets/dpop.pem"), none, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join("/run/secrets", "seal.key"); filepath.Clean(cfg.sealKey) != want {
		t.Errorf("-seal-key is %s, want %s", cfg.sealKey, want)
	}
}

func TestSealKey(t *testing.T) {
	whole := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tt := range []struct {
		name, content string
		mode          os.FileMode
		want          string // in the error; "" for none
	}{
		{"one line", whole + "\n", 0o600, ""},
		{"no end of line", whole, 0o400, ""},
		{"empty", "", 0o600, "does not have 32 bytes in base64"},
		{"short", "AAAA", 0o600, "does not have 32 bytes in base64"},
		{"not base64", "s3cret!", 0o600, "does not have 32 bytes in base64"},
		{"readable by others", whole, 0o644, "run chmod 600"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && tt.mode&0o077 != 0 {
				tt.want = "" // its permissions are those of the directory
			}
			path := filepath.Join(t.TempDir(), "seal.key")
			if err := os.WriteFile(path, []byte(tt.content), tt.mode); err != nil {
				t.Fatal(err)
			}
			cfg := config{sealKey: path, login: true}
			switch _, err := cfg.openSealKey(); {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "-seal-key")):
				t.Errorf("%v, want %q", err, tt.want)
			case err != nil && strings.Contains(err.Error(), "s3cret"):
				t.Errorf("the content is in %v", err)
			}
		})
	}
	missing := config{sealKey: filepath.Join(t.TempDir(), "seal.key")}
	if _, err := missing.openSealKey(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without -login a key that is not there gives %v", err)
	}
}
