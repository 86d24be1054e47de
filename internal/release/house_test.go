package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// heavy are modules that only some packages may bring into a program.
var heavy = []string{
	"google.golang.org/grpc", "github.com/yandex-cloud/go-genproto", "github.com/yandex-cloud/go-sdk/v2",
	"go.uber.org/zap", "github.com/spf13/cobra", "github.com/zalando/go-keyring", "github.com/jackc/pgx/v5", "go.etcd.io/etcd",
}

// TestSatellitesBringOnlyWhatTheyAreFor: each module that is released beside the
// SDK keeps to its own planet, and to the heavy modules that it exists for.
func TestSatellitesBringOnlyWhatTheyAreFor(t *testing.T) {
	for pkg, may := range map[string][]string{
		"examples/quickstart":        nil,
		"oauth/keyringstore":         {"github.com/zalando/go-keyring", sdk + "/oauth", sdk + "/dpop"},
		"oauth/etcdstore":            {"go.etcd.io/etcd", "google.golang.org/grpc", "go.uber.org/zap", sdk + "/oauth", sdk + "/dpop"},
		"oauth/pgstore":              {"github.com/jackc/pgx/v5", sdk + "/oauth", sdk + "/dpop"},
		"refreshtoken/grpctransport": {"google.golang.org/grpc", "github.com/yandex-cloud/go-genproto", sdk + "/refreshtoken"},
		"oauth/iamtest/iamgrpc": {
			"google.golang.org/grpc", "github.com/yandex-cloud/go-genproto", sdk + "/oauth", sdk + "/dpop",
		},
		"oauth/yccredentials": {
			"google.golang.org/grpc", "github.com/yandex-cloud/go-genproto", "github.com/yandex-cloud/go-sdk/v2", "go.uber.org/zap",
			sdk + "/oauth", sdk + "/dpop",
			sdk + "/refreshtoken", // grpctransport replaces rejected tokens for any gRPC client
		},
	} {
		t.Run(pkg, func(t *testing.T) {
			for _, dep := range dependencies(t, sdk+"/"+pkg) {
				for _, h := range heavy {
					if inside(dep, h) && !slices.Contains(may, h) {
						t.Errorf("%s pulls in %s", pkg, dep)
					}
				}
				if strings.HasPrefix(pkg, "examples/") || !inside(dep, sdk) || inside(dep, sdk+"/"+pkg) || inside(dep, sdk+"/internal") {
					continue
				}
				if !slices.ContainsFunc(may, func(m string) bool { return inside(dep, m) }) {
					t.Errorf("%s imports %s", pkg, dep)
				}
			}
		})
	}
}

func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	return strings.Fields(string(out))
}
