// Package netlink sends single requests to the Linux kernel (RFC 3549, netlink(7)): for
// the owner of a socket, and for an address of an interface. On other systems it is empty.
package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// patience bounds the wait for a response, which the kernel makes within the request.
const patience = time.Second

// A Message is a response.
type Message struct {
	Type uint16
	Data []byte
}

// Call sends one request of a protocol such as syscall.NETLINK_ROUTE, and returns the
// responses. flags are added to NLM_F_REQUEST and NLM_F_ACK. An error of the kernel is a
// [syscall.Errno].
func Call(protocol int, typ, flags uint16, payload []byte) ([]Message, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd)
	timeout := syscall.NsecToTimeval(patience.Nanoseconds())
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	const sequence = 1
	kernel := &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}
	request := make([]byte, syscall.NLMSG_HDRLEN, syscall.NLMSG_HDRLEN+len(payload))
	ne := binary.NativeEndian
	ne.PutUint32(request[0:], uint32(syscall.NLMSG_HDRLEN+len(payload)))
	ne.PutUint16(request[4:], typ)
	ne.PutUint16(request[6:], flags|syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	ne.PutUint32(request[8:], sequence)
	if err := syscall.Sendto(fd, append(request, payload...), 0, kernel); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	var responses []Message
	buffer := make([]byte, 1<<14)
	for {
		n, from, err := syscall.Recvfrom(fd, buffer, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if sender, ok := from.(*syscall.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // another process
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, fmt.Errorf("netlink: %w", err)
		}
		for _, m := range messages {
			switch {
			case m.Header.Seq != sequence:
			case m.Header.Type == syscall.NLMSG_ERROR && len(m.Data) >= 4:
				if code := int32(ne.Uint32(m.Data)); code != 0 {
					return nil, syscall.Errno(-code)
				}
				return responses, nil
			case m.Header.Type == syscall.NLMSG_DONE: // of a dump, which has no acknowledgment
				return responses, nil
			default:
				responses = append(responses, Message{m.Header.Type, append([]byte(nil), m.Data...)})
			}
		}
	}
}

// Attribute appends a route attribute to a request (rtnetlink(7)).
func Attribute(request []byte, typ uint16, value []byte) []byte {
	const header = 4
	request = binary.NativeEndian.AppendUint16(request, uint16(header+len(value)))
	request = binary.NativeEndian.AppendUint16(request, typ)
	request = append(request, value...)
	for len(request)%syscall.RTA_ALIGNTO != 0 {
		request = append(request, 0)
	}
	return request
}

// HasAttribute reports whether one of these route attributes has the type and value.
func HasAttribute(attributes []byte, typ uint16, value []byte) bool {
	const header = 4
	for len(attributes) >= header {
		length := int(binary.NativeEndian.Uint16(attributes))
		if length < header || length > len(attributes) {
			return false
		}
		if binary.NativeEndian.Uint16(attributes[2:]) == typ && string(attributes[header:length]) == string(value) {
			return true
		}
		next := (length + syscall.RTA_ALIGNTO - 1) / syscall.RTA_ALIGNTO * syscall.RTA_ALIGNTO
		attributes = attributes[min(next, len(attributes)):]
	}
	return false
}
