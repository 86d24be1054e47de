package metadata

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// connect is a connection over loopback, and both its addresses as seen by the client.
func connect(t *testing.T, address string) (client net.Conn, local, remote netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	unmap := func(a net.Addr) netip.AddrPort {
		ap := a.(*net.TCPAddr).AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return client, unmap(server.RemoteAddr()), unmap(server.LocalAddr())
}

// mapped dials an IPv4 address with an IPv6 socket, as programs in Java do.
func mapped(t *testing.T) (local, remote netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	sa := &syscall.SockaddrInet6{Port: l.Addr().(*net.TCPAddr).Port}
	copy(sa.Addr[:], net.IPv4(127, 0, 0, 1).To16())
	if err := syscall.Connect(fd, sa); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
}

func TestSocketUser(t *testing.T) {
	for name, find := range map[string]func(local, remote netip.AddrPort) (int, error){
		"sock_diag": askKernel, "proc": readTables, "either": socketUser,
	} {
		t.Run(name, func(t *testing.T) {
			check := func(local, remote netip.AddrPort) {
				t.Helper()
				if uid, err := find(local, remote); err != nil || uid != os.Geteuid() {
					t.Errorf("user %d, %v", uid, err)
				}
			}
			for _, address := range loopback() {
				_, local, remote := connect(t, address)
				check(local, remote)
			}
			check(mapped(t))

			// One way is closed, and the other end still reads.
			client, local, remote := connect(t, "127.0.0.1:0")
			if err := client.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			check(local, remote)

			// Nobody owns what was closed: not even root, though it reads as 0.
			client.Close()
			if uid, err := find(local, remote); err == nil {
				t.Errorf("a closed socket belongs to user %d", uid)
			}
			// A listener on the client's port is another socket.
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if uid, err := find(l.Addr().(*net.TCPAddr).AddrPort(), remote); err == nil {
				t.Errorf("a listener is the client of user %d", uid)
			}
		})
	}
}

func FuzzParseRow(f *testing.F) {
	f.Add("   1: 0100007F:9137 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 8657041 2 0 20 4 30 10 -1")
	f.Add("   1: 00000000000000000000000001000000:9137 00000000000000000000000001000000:1F90 01 0:0 0:0 0 1000 0 8657041")
	f.Add("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode")
	f.Add("a b c d e f g h i j")
	f.Fuzz(func(_ *testing.T, row string) {
		local, remote := netip.MustParseAddrPort("127.0.0.1:37175"), netip.MustParseAddrPort("127.0.0.1:8080")
		parseRow(row, local, remote)
	})
}

func TestParseRow(t *testing.T) {
	local, remote := netip.MustParseAddrPort("127.0.0.1:37175"), netip.MustParseAddrPort("127.0.0.1:8080")
	const row = "1: 0100007F:9137 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 1000 0 8657041 2"
	if uid, ok := parseRow(row, local, remote); !ok || uid != 1000 {
		t.Errorf("%d, %v", uid, ok)
	}
	for _, other := range []string{
		strings.Replace(row, " 01 ", " 06 ", 1), // TIME_WAIT
		strings.Replace(row, " 01 ", " 0A ", 1), // LISTEN
		strings.Replace(row, "8657041", "0", 1), // closed by its owner
		strings.Replace(row, "1F90", "1F91", 1),
		strings.Replace(row, "9137", "9138", 1),
	} {
		if uid, ok := parseRow(other, local, remote); ok {
			t.Errorf("%s: user %d", other, uid)
		}
	}
}

// TestOtherUser: another user of this machine gets nothing. Only root can play one.
func TestOtherUser(t *testing.T) {
	token := lasting("t1.a", time.Hour)
	addr := serve(t, New(&source{token: token}, Options{}), "127.0.0.1:0").String()
	shared := serve(t, New(&source{token: token}, Options{Users: []int{nobody}}), "127.0.0.1:0").String()
	anybody := serve(t, New(&source{token: token}, Options{AnyUser: true}), "127.0.0.1:0").String()
	if os.Geteuid() != 0 {
		t.Log("only root can run a client as another user: the IDs alone are tested")
		_, local, remote := connect(t, "127.0.0.1:0")
		if uid, err := socketUser(local, remote); err != nil || uid == nobody {
			t.Errorf("user %d, %v", uid, err)
		}
		return
	}
	for address, want := range map[string]string{addr: "403", shared: "200", anybody: "200"} {
		cmd := exec.CommandContext(t.Context(), "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Metadata-Flavor: Google", "http://"+address+TokenPath)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%s, %v; want %s", out, err, want)
		}
	}
}

// TestOtherUserTakesNoPlaces: connections of another user, however many, leave the places to
// others. Only root can play one.
func TestOtherUserTakesNoPlaces(t *testing.T) {
	s := New(&source{token: lasting("t1.a", time.Hour)}, Options{})
	addr := serveFew(t, s, 2, 1, s.stranger)
	if os.Geteuid() == 0 {
		_, port, _ := net.SplitHostPort(addr)
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "for i in {10..30}; do eval \"exec $i<>/dev/tcp/127.0.0.1/"+port+"\"; done; echo ready; read line")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		stdin, err1 := cmd.StdinPipe()
		stdout, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer stdin.Close()
		if _, err := stdout.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	} else {
		t.Log("only root can run a client as another user")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: headerTimeout * 4 / 5}
	for range 3 {
		if code, body := request(t, client, addr); code != 200 || !strings.Contains(body, "t1.a") {
			t.Errorf("%d %s", code, body)
		}
	}
}

const nobody = 65534

// TestConnectionWithoutPeer: what has no owner on this machine gets no token, for example
// a request through a tunnel that ends elsewhere.
func TestConnectionWithoutPeer(t *testing.T) {
	s := New(&source{token: lasting("t1.a", time.Hour)}, Options{})
	defer s.Close()
	w := ask(s, func(r *http.Request) { r.RemoteAddr = "127.0.0.1:1" })
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), errNoSocket.Error()) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if _, err := socketUser(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")); !errors.Is(err, errNoSocket) {
		t.Error(err)
	}
}
