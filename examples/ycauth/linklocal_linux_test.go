package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestLinkLocal: the address of metadata services is there while the service runs, and is
// removed with it. It runs in a network namespace of its own, where that is allowed.
func TestLinkLocal(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	const script = `
		ip link set lo up
		: >out; ycauth serve --link-local >out 2>&1 & pid=$!
		while ! grep -q Every out && kill -0 $pid; do sleep 0.1; done
		cat out
		ip addr show dev lo
		curl -sS -o body -w 'code %{http_code}\n' -H 'Metadata-Flavor: Google' http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token
		ycauth serve --link-local 2>&1
		kill $pid
		wait $pid
		echo exit code $?
		ip -4 addr show dev lo | grep -c 169.254
		# One that was killed leaves the address to the next one.
		: >out; ycauth serve --link-local >out & pid=$!
		while ! grep -q = out; do sleep 0.1; done
		kill -9 $pid
		wait $pid
		ip -4 addr show dev lo | grep -c 169.254
		: >out; ycauth serve --link-local >out & pid=$!
		while ! grep -q = out; do sleep 0.1; done
		kill $pid
		wait $pid
		echo exit code $?
		# An address of somebody else's is used and left.
		ip addr add 169.254.169.254/32 dev lo
		: >out; ycauth serve --link-local >out & pid=$!
		while ! grep -q = out; do sleep 0.1; done
		kill $pid
		wait $pid
		ip -4 addr show dev lo | grep -c 169.254
		echo end`
	if err := exec.CommandContext(t.Context(), "unshare", "-rn", "ip", "link", "set", "lo", "up").Run(); err != nil {
		t.Logf("namespaces are not allowed here: %v", err)
		return
	}
	r := h.finish(h.command("unshare", "-rn", "sh", "-c", script))
	for _, want := range []string{
		"YC_METADATA_ADDR=169.254.169.254:80\n", "inet 169.254.169.254/32 scope host", "code 200\n",
		"a metadata service at 169.254.169.254:80 already", "exit code 0\n0\n1\nexit code 0\n1\nend\n",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Fatalf("no %q in\n%v", want, r)
		}
	}
}

// TestLinkLocalNeedsCapability: a user without it is told what to do.
func TestLinkLocalNeedsCapability(t *testing.T) {
	if _, err := askMetadata(linkLocalAddress); err == nil {
		t.Log("this is a virtual machine of a cloud, where the command says that")
		return
	}
	h := newHome(t, nil)
	h.must(0, "login")
	args := []string{"ycauth", "serve", "--link-local"}
	if os.Geteuid() == 0 {
		args = append([]string{"setpriv", "--bounding-set=-net_admin"}, args...)
	}
	cmd := h.command(args[0], args[1:]...)
	if r := h.finish(cmd); r.code != exitFailure || !strings.Contains(r.stderr, "setcap cap_net_admin") {
		t.Error(r)
	}
}
