#!/usr/bin/env bash
# The one test command. It sets up what it needs and leaves nothing behind.
#
#   ./test.sh                 every check, on a machine with Go and nothing else
#   ./test.sh ./oauth/...     quick: gofmt, vet and race-detected tests of these packages
#
# CI=true makes it strict: what is missing fails the run, no test may skip, and
# no test result comes from the cache.
set -euo pipefail
cd "$(dirname "$0")"

lint=github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
actionlint=github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
apidiff=golang.org/x/exp/cmd/apidiff@v0.0.0-20261014143641-f0251eb4aa3e
covered='oauth dpop refreshtoken' # at least 90 % of their statements, each

# What is needed beyond Go. One line each: the Debian package, how to see that
# it is there, which packages need it (a path, or several as in
# a regular expression; "all"; "full" is a run without arguments), and what for.
needs() {
  cat <<'END'
gcc               cmd:gcc            all                   the race detector and the PC/SC binding are C
libc6-dev         header:stdlib.h    all                   the race detector and the PC/SC binding are C
shellcheck        cmd:shellcheck     full                  this script is checked too

npm               cmd:npm            internal/conformance  the authorization server of the conformance tests comes from npm
chromium          cmd:chromium       internal/conformance  the browser that goes through logins

pkg-config        cmd:pkg-config     (piv|examples/ycauth) finds the PC/SC library
libpcsclite-dev   pc:libpcsclite     (piv|examples/ycauth) the PC/SC library that cards are reached through
pcscd             cmd:pcscd          (piv|examples/ycauth) the PC/SC daemon
vsmartcard-vpcd   file:/etc/reader.conf.d/vpcd  (piv|examples/ycauth) the reader of the virtual YubiKey
yubico-piv-tool   cmd:yubico-piv-tool  piv                 Yubico's own program, to cross-check the virtual YubiKey
opensc            cmd:opensc-tool    piv                   another PIV program, to cross-check the virtual YubiKey

gnome-keyring     cmd:gnome-keyring-daemon  oauth/keyringstore  a real Secret Service for the keyring store
dbus              cmd:dbus-run-session  oauth/keyringstore  the bus that the Secret Service is on

postgresql        file:/usr/lib/postgresql  (oauth/pgstore|internal/(storehistory|bench/fleet)|examples/service)  a real server for the PostgreSQL store
pgbouncer         file:/usr/sbin/pgbouncer  (oauth/pgstore|internal/(storehistory|bench/fleet))  a pooler of transactions before it

etcd-server       cmd:etcd           (oauth/etcdstore|internal/storehistory)  a real server for the etcd store

spin              cmd:spin           internal/model        the checker of the model of leases
END
}

# Node as npm ships it, for where the machine has none or an older one
# (Debian 12: 18). The conformance tests need Node 22.
node_version=22.23.3

# --- set-up ------------------------------------------------------------------

say() { printf '%s\n' "$*"; }
fail() {
  printf 'test.sh: %s\n' "$*" >&2
  exit 1
}
strict() { [[ ${CI:-} == true ]]; }

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}
may_install() {
  command -v apt-get >/dev/null && as_root true 2>/dev/null
}

there() { # there CHECK
  local what=${1#*:}
  case $1 in
    cmd:*) command -v "$what" ;;
    file:*) [[ -e $what ]] ;;
    header:*) printf '#include <%s>\n' "$what" | cc -E - ;;
    pc:*) pkg-config --exists "$what" ;;
  esac >/dev/null 2>&1
}

wanted() { # wanted SCOPE
  case $1 in
    all) ;;
    full) [[ $mode == full ]] ;;
    *) grep -Eq "^$1(/|\$)" "$tmp/packages" ;;
  esac
}

# missing prints the lines of the table that are wanted and not there.
missing() {
  local package check scope reason
  while read -r package check scope reason; do
    [[ -n $package ]] || continue
    if wanted "$scope" && ! there "$check"; then
      printf '%-16s %s\n' "$package" "$reason"
    fi
  done < <(needs)
}

apt_install() {
  # One source that cannot be reached need not be the one that has the packages.
  as_root apt-get -qq update || say 'apt-get update failed'
  # sudo would not pass the variable on.
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

node_is_new() { node -e 'process.exit(fs.globSync ? 0 : 1)' 2>/dev/null; }

# use_node puts a Node from npm first on PATH where there is none that will do.
use_node() {
  local cache=${XDG_CACHE_HOME:-$HOME/.cache}/ycauth-go/node arch
  case $(uname -sm) in
    'Linux x86_64') arch=linux-x64 ;;
    'Linux aarch64') arch=linux-arm64 ;;
    *) return 1 ;;
  esac
  PATH=$cache/node_modules/.bin:$PATH
  node_is_new && return
  mkdir -p "$cache"
  npm install --prefix "$cache" --no-audit --no-fund --no-save "node-$arch@$node_version" >"$tmp/log" 2>&1 || cat "$tmp/log"
  hash -r # bash remembers where the older one was
  node_is_new
}

set_up() {
  local lines names
  lines=$(missing)
  if [[ -n $lines ]] && may_install; then
    names=$(cut -d' ' -f1 <<<"$lines" | xargs)
    say "install $names"
    # shellcheck disable=SC2086 # a list of words
    run apt_install $names
    if [[ $status != 0 ]]; then
      say 'that failed, which without a network is no wonder:'
      tail -n 3 "$tmp/log"
    fi
    lines=$(missing)
  fi
  if wanted internal/conformance && there cmd:npm && ! node_is_new && ! use_node; then
    lines+=${lines:+$'\n'}$(printf '%-16s %s' 'node >= 22' 'the authorization server of the conformance tests runs on it')
  fi
  if [[ -n $lines ]]; then
    say 'missing, and cannot be installed from here:'
    say "  ${lines//$'\n'/$'\n'  }"
    ! strict || fail 'with CI=true everything has to be there'
    say 'tests that need them will skip, checks that need them are left out'
  fi
  set_up_cgo
}

# set_up_cgo does without cgo, and so without the race detector, where what C
# needs is missing.
set_up_cgo() {
  local without='' cc
  cc=$(go env CC)
  if ! there "cmd:${cc%% *}"; then
    without='there is no C compiler'
  elif [[ $(uname -s) == Linux ]] && wanted '(piv|examples/ycauth|internal/conformance)' && ! there pc:libpcsclite; then
    without='the PC/SC library (libpcsclite-dev, pkg-config) is missing'
  fi
  if [[ -n $without ]]; then
    ! strict || fail "$without"
    say "$without: everything is built without cgo and tested without the race detector; cards are left out"
    export CGO_ENABLED=0
    race=''
  fi
}

# modules_are_here fails early, with words, where a module is neither in the cache
# nor can be downloaded.
modules_are_here() {
  go list -deps -test "$@" >/dev/null 2>"$tmp/log" || {
    grep -Ev '^go: (downloading|finding) ' "$tmp/log" | head -n 5
    fail 'not all packages that this needs can be loaded; the first run needs the network to download modules'
  }
}

# --- steps -------------------------------------------------------------------

# run leaves a command's exit status in $status and what it printed in
# $tmp/log. It is never part of a condition: there, errexit would not hold
# inside of the command.
run() {
  set +e
  (
    set -e
    "$@"
  ) >"$tmp/log" 2>&1
  status=$?
  set -e
}

# step NAME COMMAND… is one line: the name, then the duration. What the command
# printed is shown only if it failed.
step() {
  local name=$1 began=$SECONDS
  shift
  printf '%-60s' "$name"
  run "$@"
  if [[ $status != 0 ]]; then
    printf 'FAILED after %d s\n' $((SECONDS - began))
    cat "$tmp/log"
    fail "$name failed"
  fi
  printf '%4d s\n' $((SECONDS - began))
}

# tool NAME PACKAGE@VERSION ARG… is a step with a Go program of a module that nothing
# here requires. It is left out where that cannot be downloaded.
tool() {
  local name=$1 package=$2
  shift 2
  run go run "$package" --version
  if [[ $status != 0 ]] && ! strict; then
    say "$name is left out: ${package##*/} cannot be downloaded or built"
    tail -n 1 "$tmp/log"
    return
  fi
  step "$name" go run "$package" "$@"
}

# api compares the exported names of all modules with those of the newest release.
# Before the first one there is nothing to compare.
api() {
  local tag
  tag=$(git -c versionsort.suffix=- tag --list 'v[0-9]*' --merged HEAD --sort=-version:refname 2>/dev/null | head -n 1)
  [[ -n $tag ]] || return 0
  run env GOBIN="$tmp/bin" go install "$apidiff"
  if [[ $status != 0 ]] && ! strict; then
    say "the API since $tag is not compared: apidiff cannot be downloaded or built"
    tail -n 1 "$tmp/log"
    return
  fi
  [[ $status == 0 ]] || {
    cat "$tmp/log"
    fail 'apidiff cannot be downloaded or built'
  }
  step "the API since $tag" go run ./internal/release api "$tag" "$tmp/bin/apidiff"
}

formatted() {
  local files
  files=$(gofmt -l "$@")
  [[ -z $files ]] || {
    say "not formatted, run gofmt -w on:" "$files"
    return 1
  }
}

cross_build() {
  CGO_ENABLED=0 GOOS=$1 go build work
}

# The module that everybody imports has to do without the workspace.
root_alone() {
  export GOWORK=off
  go mod tidy -diff
  go vet ./...
}

# tests NAME REPORT-FLAGS GO-TEST-FLAGS… shows a line for each package as it
# ends, and adds what passed to the summary.
tests() {
  local name=$1 report=$2 began=$SECONDS
  shift 2
  if strict; then
    report+=' -noskip'
    set -- -count=1 "$@"
  fi
  say "$name"
  # One package more at a time than there are processors: those that use cards,
  # databases and other processes wait for most of their time.
  # shellcheck disable=SC2086 # a list of words
  go test -json -timeout=20m -p $((1 + $(getconf _NPROCESSORS_ONLN))) "$@" | "$tmp/testreport" $report -summary "$tmp/summary" || fail "$name failed"
  summary+="; $name: $(<"$tmp/summary")"
  printf '%-60s%4d s\n' "$name" $((SECONDS - began))
}

# no_race_packages lists the packages with test files that the race detector
# would leave out ("go:build !race").
no_race_packages() {
  local format='{{.ImportPath}} {{.TestGoFiles}} {{.XTestGoFiles}}'
  go list -race -f "$format" work >"$tmp/race"
  go list -f "$format" work | grep -vxFf "$tmp/race" | cut -d' ' -f1 || true
}

# seeds simulates fleets by the seeds 1 to $1, without the race detector, in two processes.
seeds() {
  local range pid pids=()
  for range in "1-$(($1 / 2))" "$(($1 / 2 + 1))-$1"; do
    YCAUTH_SIMULATION_SEEDS=$range go test -count=1 -timeout=20m -run '^TestFleetSimulation$' ./oauth &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
}

# module_patterns prints ./… patterns for all modules: "work" is no pattern of the
# linter's.
module_patterns() {
  go list -m -f '{{.Dir}}/...' | sed "s#^$PWD#.#"
}

tree() { git status --porcelain --ignored 2>/dev/null || true; }

unchanged() {
  diff "$tmp/tree" <(tree) || {
    say 'the run has changed the work tree'
    return 1
  }
}

# strays prints the ids of the programs started here that still run: each has
# inherited the mark in its environment.
strays() {
  local dir
  [[ -r /proc/self/environ ]] || return 0
  for dir in /proc/[0-9]*; do
    if grep -qsaF "YCAUTH_TEST_RUN=$YCAUTH_TEST_RUN" "$dir/environ"; then
      say "${dir#/proc/}"
    fi
  done
}

# end_strays ends them: with TERM, which gives them a moment to clean up, and with
# KILL those that ignore it. A stopped process would act on no signal before CONT.
# It says how many there were.
end_strays() {
  local pids pid deadline
  pids=$(strays)
  [[ -n $pids ]] || return 0
  say "processes left behind: $(wc -w <<<"$pids")"
  for pid in $pids; do
    say "  $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
    kill -TERM "$pid" || true
    kill -CONT "$pid" || true
  done 2>/dev/null
  deadline=$((SECONDS + grace))
  while [[ -n $(strays) ]] && ((SECONDS < deadline)); do sleep 0.1; done
  deadline=$((SECONDS + 5))
  for pid in $(strays); do say "  $pid ignores TERM and is killed"; done
  while pids=$(strays) && [[ -n $pids ]]; do
    if ((SECONDS >= deadline)); then
      say "  cannot be killed: $(xargs <<<"$pids")"
      return 1
    fi
    for pid in $pids; do kill -KILL "$pid" || true; done 2>/dev/null
    sleep 0.1
  done
  say '  they have ended'
}

# no_process gives what is about to end a moment to do so.
no_process() {
  local deadline=$((SECONDS + grace))
  while [[ -n $(strays) ]]; do
    if ((SECONDS >= deadline)); then
      end_strays
      return 1
    fi
    sleep 0.2
  done
}

clean() {
  local status=0
  no_process || status=1
  unchanged || status=1
  return "$status"
}

# --- the run -----------------------------------------------------------------

quick() {
  local dir dirs=()
  while IFS= read -r dir; do dirs+=("$dir"); done < <(go list -f '{{.Dir}}' "$@")
  step 'gofmt' formatted "${dirs[@]}"
  step 'go vet' go vet "$@"
  # shellcheck disable=SC2086 # one word or none
  tests 'tests' '' $race "$@"
}

full() {
  local cover='' name names
  step 'gofmt' formatted .
  step 'the SDK without the workspace' root_alone
  step 'go vet' go vet work
  step 'go vet without cgo' env CGO_ENABLED=0 go vet work
  step 'build for darwin' cross_build darwin
  step 'build for windows' cross_build windows
  if there cmd:shellcheck; then
    step 'shellcheck' shellcheck test.sh .ci/run
  fi
  tool 'actionlint' "$actionlint"
  # shellcheck disable=SC2046 # a list of words
  tool 'lint' "$lint" run --allow-parallel-runners $(module_patterns)
  api

  for name in $covered; do
    if compgen -G "$name/*.go" >/dev/null; then
      cover+=" -cover $name=90"
    else
      say "there is no package $name yet, so its coverage is not asked for"
    fi
  done
  # shellcheck disable=SC2086 # one word or none
  tests "tests${race:+ with the race detector}" "$cover" $race -cover -shuffle=on work
  names=${race:+$(no_race_packages)}
  if [[ -n $names ]]; then
    # shellcheck disable=SC2086 # a list of words
    tests 'tests that the race detector leaves out' '' -shuffle=on $names
  fi
  step '2,000 simulated fleets' seeds 2000
}

race=-race
grace=5 # seconds that a process has to end

# A test sources this file for its functions.
[[ ${BASH_SOURCE[0]} == "$0" ]] || return 0

command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || fail 'there is no go on PATH; Go 1.25 or newer is needed, see go.dev/doc/install'

mode=full
case ${1:-} in
  '') ;;
  -*) fail 'usage: ./test.sh [package pattern…]' ;;
  *) mode=quick ;;
esac
tmp=$(mktemp -d)
trap 'end_strays || true; rm -rf "$tmp"' EXIT
export GOWORK=$PWD/go.work YCAUTH_TEST_RUN=$$.$RANDOM

module=$(GOWORK=off go list -m)
[[ $mode == quick ]] || set -- work
go list "$@" | sed "s#^$module/##" >"$tmp/packages" || fail 'no such packages'
tree >"$tmp/tree"
summary=

say "$(go version)"
set_up
modules_are_here "$@"
go build -o "$tmp/testreport" ./internal/testreport
"$mode" "$@"
step 'nothing left behind' clean
say "PASSED in $SECONDS s: $mode run${summary}"
