package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The conformance suite of the Model Context Protocol for clients, npm's
// @modelcontextprotocol/conformance, against the client of mcp_client_test.go.

// mcpScenarios are those about authorization that the client goes through, and how it ends.
var mcpScenarios = map[string]string{
	"auth/2025-03-26-oauth-endpoint-fallback":   mcpCalled,
	"auth/2025-03-26-oauth-metadata-backcompat": mcpCalled,
	"auth/authorization-server-migration":       mcpCalled,
	"auth/basic-cimd":                           mcpCalled,
	"auth/dpop":                                 mcpCalled,
	"auth/dpop-nonce":                           mcpCalled,
	"auth/iss-normalized":                       mcpOtherIssuer,
	"auth/iss-not-advertised":                   mcpCalled,
	"auth/iss-supported":                        mcpCalled,
	"auth/iss-supported-missing":                mcpOtherIssuer,
	"auth/iss-unexpected":                       mcpOtherIssuer,
	"auth/iss-wrong-issuer":                     mcpOtherIssuer,
	"auth/metadata-default":                     mcpCalled,
	"auth/metadata-issuer-mismatch":             mcpOtherIssuer,
	"auth/metadata-var1":                        mcpCalled,
	"auth/metadata-var2":                        mcpCalled,
	"auth/metadata-var3":                        mcpCalled,
	"auth/offline-access-not-supported":         mcpCalled,
	"auth/offline-access-scope":                 mcpCalled,
	"auth/pre-registration":                     mcpCalled,
	"auth/resource-mismatch":                    mcpOtherResource,
	"auth/scope-from-scopes-supported":          mcpCalled,
	"auth/scope-from-www-authenticate":          mcpCalled,
	"auth/scope-omitted-when-undefined":         mcpCalled,
	"auth/scope-retry-limit":                    mcpScopeRefused,
	"auth/scope-step-up":                        mcpCalled,
	"auth/token-endpoint-auth-basic":            mcpCalled,
	"auth/token-endpoint-auth-none":             mcpCalled,
	"auth/token-endpoint-auth-post":             mcpCalled,
}

// mcpNotRun are the other ones about authorization, and why they are left out.
var mcpNotRun = map[string]string{
	"auth/client-credentials-basic":         "package oauth has no grant without a user (RFC 6749 §4.4)",
	"auth/client-credentials-jwt":           "package oauth has no grant without a user (RFC 6749 §4.4); private_key_jwt is tested with oidc-provider",
	"auth/enterprise-managed-authorization": "package oauth exchanges no tokens of another server (RFC 8693, RFC 7523 §2.1)",
	"auth/wif-jwt-bearer":                   "package oauth exchanges no tokens of another server (RFC 7523 §2.1)",
}

// mcpRuns are how the suite is started: each goes through many scenarios at a time.
var mcpRuns = []struct{ suite, version string }{
	{"backcompat", mcpLegacy},
	{"auth", "2025-11-25"},
	{"auth", mcpStateless},
	{"draft", mcpStateless},
	{"extensions", "extension"},
}

// mcpOtherVersions are not run: the suite has no requirements for them.
var mcpOtherVersions = []string{"2025-06-18"}

// TestMCPClient wants every check of every scenario to succeed, in each version of the
// protocol that the scenario is for.
func TestMCPClient(t *testing.T) {
	t.Parallel()
	suite := filepath.Join(installed(t), "node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js")
	missing := listMCPScenarios(t, suite)
	t.Run("suites", func(t *testing.T) {
		for _, run := range mcpRuns {
			results := runMCPSuite(t, suite, run.suite, run.version)
			for name, want := range mcpScenarios {
				if found, ok := results[name]; ok {
					delete(missing, name+" "+run.version)
					t.Run(run.version+"/"+strings.TrimPrefix(name, "auth/"), func(t *testing.T) { found.check(t, want) })
				}
			}
		}
	})
	if !t.Failed() && len(missing) != 0 {
		t.Errorf("not run: %v", slices.Sorted(maps.Keys(missing)))
	}
}

// listMCPScenarios returns those that are to be run, as "name version", and wants the
// tables above to have all that there are about authorization.
func listMCPScenarios(t *testing.T, suite string) map[string]bool {
	t.Helper()
	wanted, listed := make(map[string]bool), make(map[string]bool)
	out := runMCP(t, t.TempDir(), suite, "list", "--client")
	for _, m := range regexp.MustCompile(`(?m)^\s+- (auth/\S+) \[(\S+)\]$`).FindAllStringSubmatch(out, -1) {
		name := m[1]
		listed[name] = true
		_, run := mcpScenarios[name]
		_, out := mcpNotRun[name]
		if run == out {
			t.Errorf("%s must be in one of the tables", name)
		}
		for version := range strings.SplitSeq(m[2], ",") {
			if run && !slices.Contains(mcpOtherVersions, version) {
				wanted[name+" "+version] = true
			}
		}
	}
	for _, table := range []map[string]string{mcpScenarios, mcpNotRun} {
		for name := range table {
			if !listed[name] {
				t.Errorf("the suite has no scenario %s", name)
			}
		}
	}
	return wanted
}

// An mcpResult is what the suite wrote about one run of the client.
type mcpResult struct {
	checks         []struct{ ID, Status, Description, ErrorMessage string }
	stdout, stderr string
}

func (r mcpResult) check(t *testing.T, outcome string) {
	t.Helper()
	if got := strings.TrimSpace(r.stdout); got != outcome || r.stderr != "" {
		t.Errorf("the client ended with %q, want %q\n%s", got, outcome, r.stderr)
	}
	successes := 0
	for _, c := range r.checks {
		switch c.Status {
		case "SUCCESS":
			successes++
		case "INFO":
		default:
			t.Errorf("%s %s: %s %s", c.Status, c.ID, c.Description, c.ErrorMessage)
		}
	}
	if successes == 0 {
		t.Error("nothing was checked")
	}
	t.Logf("%d checks", successes)
}

// runMCPSuite runs a suite with this program as the client and returns the results by the
// names of the scenarios.
func runMCPSuite(t *testing.T, suite, name, version string) map[string]mcpResult {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args := []string{"client", "--suite", name, "--command", "'" + program + "'", "--output-dir", dir, "--timeout", strconv.FormatInt(mcpTimeout.Milliseconds(), 10)}
	if version != "extension" {
		args = append(args, "--spec-version", version)
	}
	said := runMCP(t, dir, suite, args...)
	results := make(map[string]mcpResult)
	stamp := regexp.MustCompile(`-[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9-]+Z$`)
	files, err := filepath.Glob(filepath.Join(dir, "auth", "*", "checks.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no results of %s: %v\n%s", name, err, said)
	}
	for _, file := range files {
		folder := filepath.Dir(file)
		var r mcpResult
		if err := json.Unmarshal(readFile(t, file), &r.checks); err != nil {
			t.Fatal(err)
		}
		r.stdout = string(readFile(t, filepath.Join(folder, "stdout.txt")))
		r.stderr = string(readFile(t, filepath.Join(folder, "stderr.txt")))
		results["auth/"+stamp.ReplaceAllString(filepath.Base(folder), "")] = r
	}
	return results
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// runMCP runs the suite's program and returns what it printed. Its status says whether all
// scenarios have passed, also those that are left out: it is not looked at.
func runMCP(t *testing.T, dir, suite string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*mcpTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{suite}, args...)...)
	cmd.Dir = dir
	cmd.WaitDelay = stopTime
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("node: %v\n%s", err, out)
	}
	return string(out)
}
