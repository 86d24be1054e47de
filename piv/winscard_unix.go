//go:build cgo && (linux || darwin || freebsd || openbsd)

package piv

// #cgo darwin LDFLAGS: -framework PCSC
// #cgo linux pkg-config: libpcsclite
// #cgo freebsd openbsd CFLAGS: -I/usr/local/include -I/usr/local/include/PCSC
// #cgo freebsd openbsd LDFLAGS: -L/usr/local/lib -lpcsclite
// #include <stdlib.h>
// #include <PCSC/winscard.h>
// #include <PCSC/wintypes.h>
import "C"

import (
	"bytes"
	"unsafe"
)

// scardContext and scardHandle are what PC/SC knows a program and its connection
// by. Their sizes differ between operating systems; these are large enough.
type (
	scardContext C.SCARDCONTEXT
	scardHandle  C.SCARDHANDLE
)

const maxResponse = C.MAX_BUFFER_SIZE_EXTENDED

func scardEstablish() (scardContext, uint32) {
	var c C.SCARDCONTEXT
	rc := C.SCardEstablishContext(C.SCARD_SCOPE_SYSTEM, nil, nil, &c)
	return scardContext(c), uint32(rc)
}

func (c scardContext) release() { C.SCardReleaseContext(C.SCARDCONTEXT(c)) }

func (c scardContext) readers() ([]string, uint32) {
	var n C.DWORD
	if rc := C.SCardListReaders(C.SCARDCONTEXT(c), nil, nil, &n); rc != C.SCARD_S_SUCCESS || n == 0 {
		return nil, uint32(rc)
	}
	names := make([]byte, n)
	rc := C.SCardListReaders(C.SCARDCONTEXT(c), nil, (*C.char)(unsafe.Pointer(&names[0])), &n)
	if rc != C.SCARD_S_SUCCESS {
		return nil, uint32(rc)
	}
	var list []string
	for name := range bytes.SplitSeq(names[:min(int(n), len(names))], []byte{0}) {
		if len(name) > 0 {
			list = append(list, string(name))
		}
	}
	return list, 0
}

func (c scardContext) connect(reader string) (scardHandle, uint32) {
	name := C.CString(reader)
	defer C.free(unsafe.Pointer(name))
	var h C.SCARDHANDLE
	var protocol C.DWORD
	rc := C.SCardConnect(C.SCARDCONTEXT(c), name, C.SCARD_SHARE_SHARED, C.SCARD_PROTOCOL_T1, &h, &protocol)
	return scardHandle(h), uint32(rc)
}

func (h scardHandle) begin() uint32 { return uint32(C.SCardBeginTransaction(C.SCARDHANDLE(h))) }

func (h scardHandle) end() uint32 {
	return uint32(C.SCardEndTransaction(C.SCARDHANDLE(h), C.SCARD_LEAVE_CARD))
}

func (h scardHandle) disconnect(reset bool) uint32 {
	disposition := C.DWORD(C.SCARD_LEAVE_CARD)
	if reset {
		disposition = C.SCARD_RESET_CARD
	}
	return uint32(C.SCardDisconnect(C.SCARDHANDLE(h), disposition))
}

// transmit returns the length of the response, which it writes to response.
func (h scardHandle) transmit(command, response []byte) (int, uint32) {
	n := C.DWORD(len(response))
	rc := C.SCardTransmit(C.SCARDHANDLE(h), C.SCARD_PCI_T1,
		(*C.BYTE)(&command[0]), C.DWORD(len(command)), nil, (*C.BYTE)(&response[0]), &n)
	return int(n), uint32(rc)
}
