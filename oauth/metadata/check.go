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
	case !s.userAllowed(uid):
		return &rejection{"user " + strconv.Itoa(uid) + " gets no token"}
	}
	return nil
}

func (s *Server) userAllowed(uid int) bool {
	return uid == 0 || uid == os.Geteuid() || slices.Contains(s.opts.Users, uid)
}

// stranger reports whether each request of a connection will be rejected because of its user.
func (s *Server) stranger(c *limitedConn) bool {
	if s.opts.AnyUser || !knowsUsers {
		return false
	}
	uid, err := c.peer.user(c.RemoteAddr().String(), addrPort(c.LocalAddr()))
	return err != nil || !s.userAllowed(uid)
}

// foreignHeaders are headers that browsers and proxies add, and metadata clients do not.
var foreignHeaders = []string{
	"Origin", "Referer", "Cookie", "Access-Control-Request-Method", "Access-Control-Request-Private-Network",
	"Forwarded", "X-Real-Ip", "Via",
}

// foreign is the name of a header that a browser or a proxy added, or "".
func foreign(h http.Header) string {
	for _, name := range foreignHeaders {
		if _, ok := h[name]; ok {
			return name
		}
	}
	for name := range h {
		switch {
		case strings.HasPrefix(name, "Sec-"): // no page can set or remove these
			return "Sec-*"
		case strings.HasPrefix(name, "X-Forwarded-"):
			return "X-Forwarded-*"
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
	addr, _ := ctx.Value(http.LocalAddrContextKey).(net.Addr)
	return addrPort(addr)
}

func addrPort(a net.Addr) netip.AddrPort {
	addr, ok := a.(*net.TCPAddr)
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
	return p.user(r.RemoteAddr, local)
}

func (p *peer) user(remoteAddr string, local netip.AddrPort) (int, error) {
	p.once.Do(func() {
		remote, err := netip.ParseAddrPort(remoteAddr)
		if err != nil || !local.IsValid() {
			p.err = errNoAddress
			return
		}
		remote = netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port())
		p.uid, p.err = socketUser(remote, local)
	})
	return p.uid, p.err
}

// limited is a listener with a bounded number of connections. Strangers have few places of
// their own, which are enough to tell them why they are rejected, so they cannot take those
// of others.
type limited struct {
	net.Listener
	stranger  func(*limitedConn) bool
	places    chan struct{}
	strangers chan struct{}
	closed    chan struct{}
	once      sync.Once

	mu      sync.Mutex
	idle    map[net.Conn]uint64 // since when, as a number that increases
	events  uint64
	waiting bool // the next connection to become idle is closed
}

func newLimited(l net.Listener, places, strangers int, stranger func(*limitedConn) bool) *limited {
	return &limited{
		Listener: l, stranger: stranger, places: make(chan struct{}, places), strangers: make(chan struct{}, strangers),
		closed: make(chan struct{}), idle: make(map[net.Conn]uint64),
	}
}

// Accept waits for a place as well. If all are taken, it closes the connection that has been
// idle for the longest time. A stranger without a place is closed.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &limitedConn{Conn: conn}
		if l.stranger(c) {
			select {
			case l.strangers <- struct{}{}:
				c.release = sync.OnceFunc(func() { <-l.strangers })
				return c, nil
			default:
				_ = conn.Close()
				continue
			}
		}
		if !l.take() {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		c.release = sync.OnceFunc(func() { <-l.places })
		return c, nil
	}
}

// take waits for a place, and reports false if the listener was closed.
func (l *limited) take() bool {
	select {
	case l.places <- struct{}{}:
		return true
	default:
	}
	l.makeRoom()
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = false
	return true
}

func (l *limited) makeRoom() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var oldest net.Conn
	for c, since := range l.idle {
		if oldest == nil || since < l.idle[oldest] {
			oldest = c
		}
	}
	if oldest == nil {
		l.waiting = true
		return
	}
	delete(l.idle, oldest)
	_ = oldest.Close()
}

// connState is for [http.Server.ConnState].
func (l *limited) connState(c net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case state != http.StateIdle:
		delete(l.idle, c)
	case l.waiting:
		l.waiting = false
		_ = c.Close()
	default:
		l.events++
		l.idle[c] = l.events
	}
}

// Close ends an Accept that waits for a place as well.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	peer    peer
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
