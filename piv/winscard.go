//go:build windows || (cgo && (linux || darwin || freebsd || openbsd))

package piv

import (
	"encoding/binary"
	"fmt"
)

// link is a shared connection to a card with a transaction on it. It keeps other
// programs from sending commands in between, but not from having the card open,
// as gsd-smartcard and PKCS #11 modules have all day.
//
// go-piv connects exclusively, which works beside none of them, and loses its
// handle when the first command after that fails: the card then stays in use until
// the process ends (v2.5.0, Open; go-piv/piv-go#116 and #192). A link has its own
// context, and leaves nothing behind.
type link struct {
	context scardContext
	handle  scardHandle
}

// scardReaders lists the names of all readers; none is no error.
func scardReaders() ([]string, error) {
	context, rc := scardEstablish()
	if rc != 0 {
		return nil, scardError("connecting to PC/SC", rc)
	}
	defer context.release()
	names, rc := context.readers()
	if rc == pcscNoReaders {
		return nil, nil
	}
	return names, scardError("listing the readers", rc)
}

// dialLink connects to the card in a reader. It waits for the end of another
// program's transaction.
func dialLink(reader string) (*link, error) {
	context, rc := scardEstablish()
	if rc != 0 {
		return nil, scardError("connecting to PC/SC", rc)
	}
	handle, rc := context.connect(reader)
	if rc != 0 {
		context.release()
		return nil, scardError("connecting to the card", rc)
	}
	l := &link{context, handle}
	if rc := handle.begin(); rc != 0 {
		l.disconnect(false)
		return nil, scardError("beginning a transaction", rc)
	}
	return l, nil
}

// Close ends the transaction and leaves the card as it is, with the PIN verified.
func (l *link) Close() error {
	rc := l.handle.end()
	l.disconnect(false)
	return scardError("ending the transaction", rc)
}

// abandon closes a connection after an error. A card that stopped to answer is
// reset, so that the next program finds it in a known state.
func (l *link) abandon(err error) { l.disconnect(pcscCode(err) != 0) }

func (l *link) disconnect(reset bool) {
	// This can fail only where the card or the service is gone.
	_ = l.handle.disconnect(reset)
	l.context.release()
}

// Commands and responses that open the application (NIST SP 800-73-4 part 2,
// section 3.1; Yubico, "PIV extensions").
const (
	insPutData     = 0xdb
	insGetResponse = 0xc0
	insGetVersion  = 0xfd
	insGetMetadata = 0xf7
	insSelect      = 0xa4
	insReadConfig  = 0x1d // of the management application

	claChaining = 0x10
	maxData     = 0xff // of a short APDU

	sw1MoreData = 0x61
	swSuccess   = 0x9000
)

// Applications of a YubiKey.
var (
	aidPIV        = []byte{0xa0, 0x00, 0x00, 0x03, 0x08}
	aidManagement = []byte{0xa0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17}
)

// selectPIV selects the PIV application and asks for its version.
func (l *link) selectPIV() (Version, error) {
	if _, err := l.command(insSelect, 0x04, 0x00, aidPIV); err != nil {
		return Version{}, fmt.Errorf("selecting the PIV application: %w", err)
	}
	v, err := l.command(insGetVersion, 0, 0, nil)
	if err == nil && len(v) != 3 {
		err = fmt.Errorf("%d bytes", len(v))
	}
	if err != nil {
		return Version{}, fmt.Errorf("asking for the version: %w", err)
	}
	return Version{int(v[0]), int(v[1]), int(v[2])}, nil
}

// readConfig asks the management application what the device is, and selects PIV
// again. PIV forgets the PIN and the management key meanwhile.
func (l *link) readConfig() ([]byte, error) {
	if _, err := l.command(insSelect, 0x04, 0x00, aidManagement); err != nil {
		return nil, fmt.Errorf("selecting the management application: %w", err)
	}
	config, err := l.command(insReadConfig, 0, 0, nil)
	if _, back := l.command(insSelect, 0x04, 0x00, aidPIV); back != nil && err == nil {
		err = fmt.Errorf("selecting the PIV application again: %w", back)
	}
	return config, err
}

// command sends a command, in parts where it is long (ISO/IEC 7816-4 section
// 5.1.1), and returns the whole response.
func (l *link) command(ins, p1, p2 byte, data []byte) ([]byte, error) {
	for len(data) > maxData {
		if _, err := l.exchange(append([]byte{claChaining, ins, p1, p2, maxData}, data[:maxData]...)); err != nil {
			return nil, err
		}
		data = data[maxData:]
	}
	apdu := append([]byte{0, ins, p1, p2, byte(len(data))}, data...)
	var whole []byte
	for {
		part, err := l.exchange(apdu)
		if err != nil {
			return nil, err
		}
		n := len(part) - 2
		whole = append(whole, part[:n]...)
		if part[n] != sw1MoreData {
			return whole, nil
		}
		if len(whole) > maxResponse {
			return nil, scardError("an endless response", pcscNotTransacted)
		}
		apdu = []byte{0, insGetResponse, 0, 0, 0}
	}
}

// exchange returns a response with its status word, which is success or says that
// there is more.
func (l *link) exchange(apdu []byte) ([]byte, error) {
	response := make([]byte, maxResponse)
	n, rc := l.handle.transmit(apdu, response)
	if rc != 0 {
		return nil, scardError("sending a command", rc)
	}
	if n < 2 {
		return nil, scardError(fmt.Sprintf("a response of %d bytes", n), pcscNotTransacted)
	}
	status := binary.BigEndian.Uint16(response[n-2 : n])
	if status != swSuccess && status>>8 != sw1MoreData {
		return nil, &statusError{status, fmt.Errorf("smart card error %04x", status)}
	}
	return response[:n], nil
}

// scardError is the error for a PC/SC return code, nil for success.
func scardError(what string, rc uint32) error {
	if rc == 0 {
		return nil
	}
	name, ok := pcscNames[rc]
	if !ok {
		return &pcscError{rc, fmt.Errorf("%s: PC/SC error 0x%08X", what, rc)}
	}
	return &pcscError{rc, fmt.Errorf("%s: PC/SC error 0x%08X, SCARD_%s", what, rc, name)}
}

var pcscNames = map[uint32]string{
	pcscInvalidHandle:     "E_INVALID_HANDLE",
	pcscUnknownReader:     "E_UNKNOWN_READER",
	pcscSharingViolation:  "E_SHARING_VIOLATION",
	pcscNoCard:            "E_NO_SMARTCARD",
	pcscNotReady:          "E_NOT_READY",
	pcscServiceLost:       "F_COMM_ERROR",
	pcscNotTransacted:     "E_NOT_TRANSACTED",
	pcscReaderUnavailable: "E_READER_UNAVAILABLE",
	pcscNoService:         "E_NO_SERVICE",
	pcscServiceStopped:    "E_SERVICE_STOPPED",
	pcscNoAccess:          "E_NO_ACCESS",
	pcscNoReaders:         "E_NO_READERS_AVAILABLE",
	pcscCommunication:     "E_COMM_DATA_LOST",
	pcscUnresponsive:      "W_UNRESPONSIVE_CARD",
	pcscUnpowered:         "W_UNPOWERED_CARD",
	pcscCardReset:         "W_RESET_CARD",
	pcscCardRemoved:       "W_REMOVED_CARD",
	pcscSecurityViolation: "W_SECURITY_VIOLATION",
}
