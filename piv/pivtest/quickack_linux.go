package pivtest

import (
	"net"
	"syscall"
)

// quickAck acknowledges the next message at once. The driver sends without TCP_NODELAY, and does not wait for an answer to a
// reset, so that what follows it would wait some 40 ms for a delayed acknowledgement. Linux forgets the option now and then.
func quickAck(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
}
