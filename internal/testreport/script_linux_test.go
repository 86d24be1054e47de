package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// script runs commands with the functions of test.sh.
func script(t *testing.T, commands string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "source ../../test.sh\n"+
		// A mark of its own, and not of the shell itself.
		"export YCAUTH_TEST_RUN="+t.Name()+"\ntmp="+t.TempDir()+"\n"+commands)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestNoProcessSurvives leaves processes behind that do not end by themselves.
func TestNoProcessSurvives(t *testing.T) {
	const start = `
		quietly() { exec env "$@" >/dev/null 2>&1 </dev/null; }
		(quietly sleep 61) &
		# Each is one process for all its life: one that forks would be counted twice.
		(quietly bash -c 'trap "" TERM HUP INT; exec sleep 62') &
		(quietly bash -c 'kill -STOP $$; exec sleep 63') &
		(quietly bash -c 'trap "" TERM; kill -STOP $$; exec sleep 64') &
		count() { local pids; pids=$(strays); wc -w <<<"$pids"; }
		until (($(count) >= 4)); do sleep 0.1; done
		sleep 0.5
		grace=1
	`
	t.Cleanup(func() {
		for _, pid := range marked(t, t.Name()) {
			_ = exec.Command("kill", "-KILL", pid).Run()
		}
	})
	out := script(t, start+`
		run no_process
		cat "$tmp/log"
		say "status $status, left $(count)"
	`)
	for _, want := range []string{"processes left behind: 4", "sleep 61", "ignores TERM and is killed", "they have ended", "status 1, left 0"} {
		if !strings.Contains(out, want) {
			t.Errorf("test.sh does not say %q:\n%s", want, out)
		}
	}
	if marked := marked(t, t.Name()); len(marked) > 0 {
		t.Errorf("%v survived:\n%s", marked, out)
	}
}

// marked lists the processes with this mark, by our own look.
func marked(t *testing.T, mark string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, file := range files {
		if environ, err := os.ReadFile(file); err == nil && strings.Contains(string(environ), "YCAUTH_TEST_RUN="+mark+"\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

// TestMissingProgramsAreSaid: a package that cannot be installed, by root without a
// network as by anybody else, costs the tests that need it and not the run.
func TestMissingProgramsAreSaid(t *testing.T) {
	commands := `
		needs() { echo 'no-such-package cmd:no-such-program all it is never there'; }
		as_root() { "$@"; }
		may_install() { true; }
		apt-get() { echo 'Temporary failure resolving the host'; return 100; }
		env() { while [[ $1 == *=* ]]; do shift; done; "$@"; }
		mode=quick
		echo dpop >"$tmp/packages"
	`
	out := script(t, commands+"set_up; say went on", "CI=")
	for _, want := range []string{"install no-such-package", "Temporary failure", "it is never there", "tests that need them will skip", "went on"} {
		if !strings.Contains(out, want) {
			t.Errorf("without a network test.sh does not say %q:\n%s", want, out)
		}
	}
	out = script(t, commands+`run set_up; cat "$tmp/log" 2>/dev/null; say "status $status"`, "CI=true")
	if !strings.Contains(out, "status 1") {
		t.Errorf("with CI=true the run goes on:\n%s", out)
	}
}

func TestNoCompilerMeansNoRaceDetector(t *testing.T) {
	commands := `
		needs() { :; }
		mode=quick
		echo dpop >"$tmp/packages"
		set_up
		say "race '$race', cgo '${CGO_ENABLED:-}'"
	`
	for name, test := range map[string]struct{ cc, want string }{
		"there":              {"true", "race '-race', cgo ''"},
		"there, with a flag": {"true -m64", "race '-race', cgo ''"},
		"missing":            {"no-such-compiler", "there is no C compiler"},
		"missing, and so":    {"no-such-compiler", "race '', cgo '0'"},
	} {
		if out := script(t, commands, "CC="+test.cc, "CGO_ENABLED=", "CI="); !strings.Contains(out, test.want) {
			t.Errorf("%s: test.sh does not say %q:\n%s", name, test.want, out)
		}
	}
	if out := script(t, fmt.Sprintf("(%s) || say stopped", commands), "CC=no-such-compiler", "CI=true"); !strings.Contains(out, "stopped") {
		t.Errorf("with CI=true the run goes on:\n%s", out)
	}
}
