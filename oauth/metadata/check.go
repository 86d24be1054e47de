package metadata

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A rejection says why a request gets no token.
type rejection struct{ reason string }

// check returns why a request is rejected, nil if it is not.
func (s *Server) check(r *http.Request) *rejection {
	local := localAddr(r.Context())
	if !s.hostAllowed(r.Host, local) {
		return &rejection{"the header Host is not the address of this server"}
	}
	if name := foreign(r.Header); name != "" {
		return &rejection{"a request with the header " + name + " is rejected: it comes from a browser or through a proxy"}
	}
	if flavor := r.Header.Values("Metadata-Flavor"); len(flavor) != 1 || !strings.EqualFold(flavor[0], "Google") {
		return &rejection{"the header \"Metadata-Flavor: Google\" is missing"}
	}
	if r.ContentLength != 0 {
		return &rejection{"a request with a body is rejected"}
	}
	if s.opts.AnyUser || !knowsUsers {
		return nil
	}
	uid, err := userOf(r, local)
	switch {
	case err != nil:
		return &rejection{"the user of this connection is not known: " + err.Error()}
	case uid != 0 && uid != os.Geteuid() && !slices.Contains(s.opts.Users, uid):
		return &rejection{"user " + strconv.Itoa(uid) + " gets no token"}
	}
	return nil
}

// foreignHeaders are headers that browsers and proxies add, and metadata clients do not.
var foreignHeaders = []string{
	"Origin", "Referer", "Cookie", "Access-Control-Request-Method", "Access-Control-Request-Private-Network",
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via",
}

// foreign is the name of a header that a browser or a proxy added, or "".
func foreign(h http.Header) string {
	for _, name := range foreignHeaders {
		if _, ok := h[name]; ok {
			return name
		}
	}
	for name := range h {
		if strings.HasPrefix(name, "Sec-") { // no page can set or remove these
			return "Sec-*"
		}
	}
	return ""
}

// hostAllowed reports whether the header Host is the address of the connection, or an
// allowed one.
func (s *Server) hostAllowed(host string, local netip.AddrPort) bool {
	if s.hosts[strings.ToLower(host)] {
		return true
	}
	if name, ok := strings.CutSuffix(host, ":80"); ok && local.Port() == 80 && s.hosts[strings.ToLower(name)] {
		return true
	}
	if !local.IsValid() {
		return false
	}
	given, err := netip.ParseAddrPort(host)
	if err != nil {
		addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
		if err != nil {
			return false
		}
		given = netip.AddrPortFrom(addr, 80) // RFC 9110 §4.2.1
	}
	return given.Port() == local.Port() && given.Addr().Unmap() == local.Addr()
}

// localAddr is the server's end of the connection; not valid if that is not an IP address.
func localAddr(ctx context.Context) netip.AddrPort {
	addr, ok := ctx.Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := addr.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// peerKey is where a connection keeps its peer.
type peerKey struct{}

// A peer is the owner of the other end of a connection, which is found out once.
type peer struct {
	once sync.Once
	uid  int
	err  error
}

var errNoAddress = errors.New("the connection has no IP address")

// userOf is the user ID of the owner of the client's socket.
func userOf(r *http.Request, local netip.AddrPort) (int, error) {
	p, ok := r.Context().Value(peerKey{}).(*peer)
	if !ok {
		p = new(peer) // another http.Server than ours
	}
	p.once.Do(func() {
		remote, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !local.IsValid() {
			p.err = errNoAddress
			return
		}
		remote = netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port())
		p.uid, p.err = socketUser(remote, local)
	})
	return p.uid, p.err
}

// limited is a listener with a bounded number of connections.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLimited(l net.Listener, n int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept waits for a place as well.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close ends an Accept that waits for a place as well.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
