//go:build !linux

package pivtest

import "net"

func quickAck(*net.TCPConn) {}
