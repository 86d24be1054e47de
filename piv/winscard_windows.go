package piv

import (
	"syscall"
	"unsafe"
)

// scardContext and scardHandle are what PC/SC knows a program and its connection
// by.
type (
	scardContext uintptr
	scardHandle  uintptr
)

const maxResponse = 4 + 3 + 1<<16 + 3 + 2 // an extended APDU

var (
	winscard            = syscall.NewLazyDLL("winscard.dll")
	procEstablish       = winscard.NewProc("SCardEstablishContext")
	procRelease         = winscard.NewProc("SCardReleaseContext")
	procListReaders     = winscard.NewProc("SCardListReadersW")
	procConnect         = winscard.NewProc("SCardConnectW")
	procBegin           = winscard.NewProc("SCardBeginTransaction")
	procEnd             = winscard.NewProc("SCardEndTransaction")
	procDisconnect      = winscard.NewProc("SCardDisconnect")
	procTransmit        = winscard.NewProc("SCardTransmit")
	protocolInformation = ioRequest{protocol: scardProtocolT1, length: uint32(unsafe.Sizeof(ioRequest{}))}
)

// ioRequest is SCARD_IO_REQUEST.
type ioRequest struct{ protocol, length uint32 }

const (
	scardScopeSystem = 2
	scardShareShared = 2
	scardProtocolT1  = 2
	scardLeaveCard   = 0
	scardResetCard   = 1
)

func scardEstablish() (scardContext, uint32) {
	var c scardContext
	rc, _, _ := procEstablish.Call(scardScopeSystem, 0, 0, uintptr(unsafe.Pointer(&c)))
	return c, uint32(rc)
}

func (c scardContext) release() { _, _, _ = procRelease.Call(uintptr(c)) }

func (c scardContext) readers() ([]string, uint32) {
	var n uint32
	rc, _, _ := procListReaders.Call(uintptr(c), 0, 0, uintptr(unsafe.Pointer(&n)))
	if rc != 0 || n == 0 {
		return nil, uint32(rc)
	}
	names := make([]uint16, n)
	rc, _, _ = procListReaders.Call(uintptr(c), 0, uintptr(unsafe.Pointer(&names[0])), uintptr(unsafe.Pointer(&n)))
	if rc != 0 {
		return nil, uint32(rc)
	}
	var list []string
	start := 0
	for i, char := range names {
		if char != 0 {
			continue
		}
		if i > start {
			list = append(list, syscall.UTF16ToString(names[start:i]))
		}
		start = i + 1
	}
	return list, 0
}

func (c scardContext) connect(reader string) (scardHandle, uint32) {
	name, err := syscall.UTF16PtrFromString(reader)
	if err != nil {
		return 0, pcscUnknownReader
	}
	var h scardHandle
	var protocol uint32
	rc, _, _ := procConnect.Call(uintptr(c), uintptr(unsafe.Pointer(name)), scardShareShared, scardProtocolT1,
		uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&protocol)))
	return h, uint32(rc)
}

func (h scardHandle) begin() uint32 {
	rc, _, _ := procBegin.Call(uintptr(h))
	return uint32(rc)
}

func (h scardHandle) end() uint32 {
	rc, _, _ := procEnd.Call(uintptr(h), scardLeaveCard)
	return uint32(rc)
}

func (h scardHandle) disconnect(reset bool) uint32 {
	disposition := uintptr(scardLeaveCard)
	if reset {
		disposition = scardResetCard
	}
	rc, _, _ := procDisconnect.Call(uintptr(h), disposition)
	return uint32(rc)
}

// transmit returns the length of the response, which it writes to response.
func (h scardHandle) transmit(command, response []byte) (int, uint32) {
	n := uint32(len(response))
	rc, _, _ := procTransmit.Call(uintptr(h), uintptr(unsafe.Pointer(&protocolInformation)),
		uintptr(unsafe.Pointer(&command[0])), uintptr(len(command)), 0,
		uintptr(unsafe.Pointer(&response[0])), uintptr(unsafe.Pointer(&n)))
	return int(n), uint32(rc)
}
