package main

import (
	"slices"
	"testing"
)

func TestArguments(t *testing.T) {
	for _, tt := range []struct{ args, want []string }{
		{nil, nil},
		{[]string{"ycauth", "token"}, []string{"token"}},
		{[]string{"/usr/local/bin/docker-credential-ycauth", "get"}, []string{"docker-credential", "get"}},
		{[]string{"docker-credential-ycauth.exe", "list"}, []string{"docker-credential", "list"}},
	} {
		if got := arguments(tt.args); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.args, got, tt.want)
		}
	}
}

// TestRegistryOf: what is no registry of ours by its host gets no token.
func TestRegistryOf(t *testing.T) {
	for server, want := range map[string]bool{
		"cr.yandex": true, "https://cr.yandex": true, "https://CR.yandex/v2/": true, "cr.yandex:443": true,
		"http://cr.yandex": false, "cr.yandex:80": false, "cr.yandex.example.com": false, "cr.yandex@example.com": false,
		"https://example.com/cr.yandex": false, "notcr.yandex": false, "": false,
	} {
		if got := registryOf(server) == registryHost; got != want {
			t.Errorf("%q: %v", server, got)
		}
	}
}

// TestRegistries: what a user may write for a host.
func TestRegistries(t *testing.T) {
	a := &app{system: system{getenv: func(string) string {
		return " My.Registry.example ,other.example:443,https://third.example/v2/,http://fourth.example,,/,sixth.example:5000"
	}}}
	want := []string{registryHost, "my.registry.example", "other.example", "third.example", "sixth.example:5000"}
	if got := a.registries(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if slices.Contains(a.registries(), registryOf("http://evil.example")) {
		t.Error("a registry without TLS gets a token")
	}
}
