package virtual

import (
	"bytes"
	"context"
	"encoding/binary"
)

// application is one of the applications of a YubiKey that programs for PIV select.
type application int

const (
	appNone application = iota // after power on
	appPIV
	appOTP        // serial number before firmware 5
	appManagement // form factor; selecting it also makes PIV forget its session
)

var (
	aidPIV        = []byte("\xa0\x00\x00\x03\x08\x00\x00\x10\x00\x01\x00") // SP 800-73-4 part 1, 2.2
	aidOTP        = []byte("\xa0\x00\x00\x05\x27\x20\x01\x01")
	aidManagement = []byte("\xa0\x00\x00\x05\x27\x47\x11\x17")
)

// pivTemplate is the application property template (SP 800-73-4 part 2, table 3): identifier 0000 1000 0100 and the issuer.
var pivTemplate = []byte("\x61\x11\x4f\x06\x00\x00\x10\x00\x01\x00\x79\x07\x4f\x05\xa0\x00\x00\x03\x08")

// selectApplication is SELECT (SP 800-73-4 part 2, 3.1.1). The PIV application may be named by its whole identifier or by the
// first five bytes and more. A name that is unknown leaves everything as it is.
func (c *Card) selectApplication(r request) ([]byte, StatusWord) {
	if r.p1 != 0x04 || r.p2&^0x0c != 0 {
		return nil, IncorrectP1P2
	}
	switch {
	case len(r.data) >= 5 && bytes.HasPrefix(aidPIV, r.data):
		if c.session.app != appPIV || c.firmware.selectForgetsPIN() {
			c.session = session{app: appPIV}
		}
		return pivTemplate, Success
	case bytes.Equal(r.data, aidOTP):
		c.session = session{app: appOTP}
		return c.otpStatus(), Success
	case bytes.Equal(r.data, aidManagement):
		c.session = session{app: appManagement}
		return []byte("Virtual mgr - FW version " + c.firmware.String()), Success
	default:
		return nil, NotFound
	}
}

// otpStatus is what the OTP application says of itself: version, programming sequence, touch level.
func (c *Card) otpStatus() []byte {
	return append(c.version(), 0, 0, 0, 0)
}

// otpCommand knows the one command that programs for PIV send: the request for the serial number.
func (c *Card) otpCommand(r request) ([]byte, StatusWord) {
	const insRequest, slotSerial = 0x01, 0x10
	switch {
	case r.ins != insRequest:
		return nil, UnknownInstruction
	case r.p1 != slotSerial:
		return nil, IncorrectP1P2
	default:
		return c.serialNumber(), Success
	}
}

// managementCommand knows READ CONFIG: a length and data objects that say what the device is.
func (c *Card) managementCommand(r request) ([]byte, StatusWord) {
	const (
		insReadConfig   = 0x1d
		tagUSBSupported = 0x01
		tagSerial       = 0x02
		tagUSBEnabled   = 0x03
		tagFormFactor   = 0x04
		tagVersion      = 0x05
		allOverUSB      = "\x02\x3f" // OTP, U2F, FIDO2, OATH, PIV, OpenPGP
	)
	if r.ins != insReadConfig {
		return nil, UnknownInstruction
	}
	b := appendTLV(nil, tagUSBSupported, []byte(allOverUSB))
	b = appendTLV(b, tagSerial, c.serialNumber())
	b = appendTLV(b, tagUSBEnabled, []byte(allOverUSB))
	if c.firmware.Major >= 5 {
		b = appendTLV(b, tagFormFactor, []byte{byte(c.formFactor)})
		b = appendTLV(b, tagVersion, c.version())
	}
	return append([]byte{byte(len(b))}, b...), Success
}

func (c *Card) version() []byte {
	return []byte{c.firmware.Major, c.firmware.Minor, c.firmware.Patch}
}

func (c *Card) serialNumber() []byte {
	return binary.BigEndian.AppendUint32(nil, c.serial)
}

// getVersion is GET VERSION.
func (c *Card) getVersion(_ context.Context, _ request) ([]byte, StatusWord) {
	return c.version(), Success
}

// getSerial is GET SERIAL, from firmware 5 on.
func (c *Card) getSerial(_ context.Context, _ request) ([]byte, StatusWord) {
	return c.serialNumber(), Success
}
