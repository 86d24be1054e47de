package metadata

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/ycauth/ycauth-go/internal/netlink"
)

// knowsUsers: the kernel tells every program who owns a socket.
const knowsUsers = true

var errNoSocket = errors.New("the other end is no socket of this machine, or was closed")

// socketUser is the user ID of the owner of the connected TCP socket with these addresses.
func socketUser(local, remote netip.AddrPort) (int, error) {
	uid, err := askKernel(local, remote)
	if err == nil || errors.Is(err, errNoSocket) {
		return uid, err
	}
	return readTables(local, remote) // a kernel or a sandbox without sock_diag(7)
}

// Constants of linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
const (
	netlinkSockDiag  = 4
	sockDiagByFamily = 20
	socketIDSize     = 48
	diagRequestSize  = 8 + socketIDSize
	diagMessageSize  = 4 + socketIDSize + 20

	tcpEstablished = 1
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpCloseWait   = 8
)

// owned reports whether a socket in this state has an owner: a listener is another
// socket, and one that was closed belongs to nobody, which reads as root.
func owned(state uint8, inode uint64) bool {
	return inode != 0 && slices.Contains([]uint8{tcpEstablished, tcpFinWait1, tcpFinWait2, tcpCloseWait}, state)
}

// askKernel asks for one socket (sock_diag(7)), which takes microseconds however many there are.
func askKernel(local, remote netip.AddrPort) (int, error) {
	family := byte(syscall.AF_INET6)
	if local.Addr().Is4() {
		family = syscall.AF_INET
	}
	id := make([]byte, 0, socketIDSize)
	id = binary.BigEndian.AppendUint16(id, local.Port())
	id = binary.BigEndian.AppendUint16(id, remote.Port())
	for _, addr := range []netip.Addr{local.Addr(), remote.Addr()} {
		var field [16]byte
		copy(field[:], addr.AsSlice())
		id = append(id, field[:]...)
	}
	id = append(id, 0, 0, 0, 0)                                     // any interface
	id = append(id, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // INET_DIAG_NOCOOKIE
	request := append(make([]byte, 0, diagRequestSize), family, syscall.IPPROTO_TCP, 0, 0)
	request = binary.NativeEndian.AppendUint32(request, 1<<tcpEstablished|1<<tcpFinWait1|1<<tcpFinWait2|1<<tcpCloseWait)
	request = append(request, id...)
	messages, err := netlink.Call(netlinkSockDiag, sockDiagByFamily, 0, request)
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		if m.Type != sockDiagByFamily || len(m.Data) < diagMessageSize {
			continue
		}
		here, there, ok := diagAddresses(m.Data)
		if !ok || here != local || there != remote {
			continue // a listener
		}
		rest := m.Data[4+socketIDSize:]
		if owned(m.Data[1], uint64(binary.NativeEndian.Uint32(rest[16:]))) {
			return int(binary.NativeEndian.Uint32(rest[12:])), nil
		}
	}
	return 0, errNoSocket
}

// diagAddresses are both ends of the socket in a response.
func diagAddresses(message []byte) (local, remote netip.AddrPort, ok bool) {
	size := 16
	switch message[0] {
	case syscall.AF_INET:
		size = 4
	case syscall.AF_INET6:
	default:
		return local, remote, false
	}
	at := func(port, address int) netip.AddrPort {
		addr, _ := netip.AddrFromSlice(message[address : address+size])
		return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(message[port:]))
	}
	return at(4, 8), at(6, 24), true
}

// readTables looks for the socket among all (proc_pid_net(5)).
func readTables(local, remote netip.AddrPort) (int, error) {
	var errs []error
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		uid, err := readTable(path, local, remote)
		if err == nil {
			return uid, nil
		}
		if !errors.Is(err, errNoSocket) && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if errs != nil {
		return 0, errors.Join(errs...)
	}
	return 0, errNoSocket
}

func readTable(path string, local, remote netip.AddrPort) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if uid, ok := parseRow(lines.Text(), local, remote); ok {
			return uid, nil
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, errNoSocket
}

// parseRow is the user ID of a row of such a table, if it is the socket with these addresses.
func parseRow(row string, local, remote netip.AddrPort) (uid int, ok bool) {
	// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
	fields := strings.Fields(row)
	if len(fields) < 10 {
		return 0, false
	}
	if here, ok := parseAddress(fields[1]); !ok || here != local {
		return 0, false
	}
	if there, ok := parseAddress(fields[2]); !ok || there != remote {
		return 0, false
	}
	state, err1 := strconv.ParseUint(fields[3], 16, 8)
	id, err2 := strconv.ParseUint(fields[7], 10, 32)
	inode, err3 := strconv.ParseUint(fields[9], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || !owned(uint8(state), inode) {
		return 0, false
	}
	return int(id), true
}

// parseAddress reads an address in words of the machine's byte order, and a port.
func parseAddress(field string) (netip.AddrPort, bool) {
	words, portText, found := strings.Cut(field, ":")
	raw, err := hex.DecodeString(words)
	port, errPort := strconv.ParseUint(portText, 16, 16)
	if !found || err != nil || errPort != nil || (len(raw) != 4 && len(raw) != 16) {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), true
}
