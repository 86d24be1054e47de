package virtual

import (
	"fmt"
	"strconv"
	"strings"
)

// Firmware is the version of a YubiKey's firmware. It decides which commands, algorithms and bugs the card has.
type Firmware struct {
	Major, Minor, Patch byte
}

// Firmware versions that differ in what a program meets. Any other version may be given too: what a card can do follows from
// comparing versions.
var (
	// Firmware43 is the first generation with attestation. It has no serial number command, no metadata, and SELECT
	// forgets a verified PIN even if PIV is selected already.
	Firmware43 = Firmware{4, 3, 7}
	// Firmware52 has the serial number command, but no metadata.
	Firmware52 = Firmware{5, 2, 7}
	// Firmware531 has metadata, and its bug: asking whether the PIN is verified (an empty VERIFY) forgets the PIN.
	Firmware531 = Firmware{5, 3, 1}
	// Firmware54 has AES management keys; the default is still a triple DES key.
	Firmware54 = Firmware{5, 4, 3}
	// Firmware57 has Ed25519, X25519, RSA 3072 and 4096, an AES-192 management key from the
	// start, and an attestation chain with intermediates.
	Firmware57 = Firmware{5, 7, 4}
)

// ParseFirmware parses "5.7.4", or "5.7" for the version of that line which has a name here.
func ParseFirmware(s string) (Firmware, error) {
	var numbers [3]byte
	parts := strings.Split(s, ".")
	if len(parts) < 2 || len(parts) > len(numbers) {
		return Firmware{}, fmt.Errorf("firmware %q is not like 5.7 or 5.7.4", s)
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return Firmware{}, fmt.Errorf("firmware %q is not like 5.7 or 5.7.4", s)
		}
		numbers[i] = byte(n)
	}
	f := Firmware{numbers[0], numbers[1], numbers[2]}
	if len(parts) == len(numbers) {
		return f, nil
	}
	for _, named := range []Firmware{Firmware43, Firmware52, Firmware531, Firmware54, Firmware57} {
		if named.Major == f.Major && named.Minor == f.Minor {
			return named, nil
		}
	}
	return f, nil
}

// String returns the version as "5.7.4".
func (f Firmware) String() string { return fmt.Sprintf("%d.%d.%d", f.Major, f.Minor, f.Patch) }

// AtLeast reports whether f is the given version or a later one.
func (f Firmware) AtLeast(major, minor, patch byte) bool {
	if f.Major != major {
		return f.Major > major
	}
	if f.Minor != minor {
		return f.Minor > minor
	}
	return f.Patch >= patch
}

func (f Firmware) hasPIVSerial() bool    { return f.AtLeast(5, 0, 0) }
func (f Firmware) hasMetadata() bool     { return f.AtLeast(5, 3, 0) }
func (f Firmware) hasAES() bool          { return f.AtLeast(5, 4, 0) }
func (f Firmware) has57Algorithms() bool { return f.AtLeast(5, 7, 0) }

// hasChainedCA reports whether Yubico signed the attestation key with an intermediate; until 5.7.3 the root did.
func (f Firmware) hasChainedCA() bool { return f.AtLeast(5, 7, 4) }

// selectForgetsPIN: SP 800-73-4 part 2, 3.1.1, wants a SELECT of the selected application to change nothing. Generation 4 did not.
func (f Firmware) selectForgetsPIN() bool { return !f.AtLeast(5, 0, 0) }

func (f Firmware) emptyVerifyForgetsPIN() bool { return f == Firmware531 }

// defaultManagementAlgorithm is that of the management key after a reset.
func (f Firmware) defaultManagementAlgorithm() Algorithm {
	if f.AtLeast(5, 7, 0) {
		return AES192
	}
	return TripleDES
}

// atr returns the answer to reset; the historical bytes say "Yubikey4" for generation 4 and "YubiKey" for 5.
func (f Firmware) atr() []byte {
	if f.AtLeast(5, 0, 0) {
		return []byte("\x3b\xfd\x13\x00\x00\x81\x31\xfe\x15\x80\x73\xc0\x21\xc0\x57YubiKey\x40")
	}
	return []byte("\x3b\xf8\x13\x00\x00\x81\x31\xfe\x15Yubikey4\xd4")
}

// supports reports whether keys of the algorithm can be generated, imported and used.
func (f Firmware) supports(a Algorithm) bool {
	switch a {
	case P256, P384, RSA1024, RSA2048:
		return true
	case RSA3072, RSA4096, Ed25519, X25519:
		return f.has57Algorithms()
	default:
		return false
	}
}

// supportsManagement reports whether the algorithm can be that of the management key.
func (f Firmware) supportsManagement(a Algorithm) bool {
	switch a {
	case TripleDES:
		return true
	case AES128, AES192, AES256:
		return f.hasAES()
	default:
		return false
	}
}

// FormFactor is the shape of a YubiKey as its management application and its attestation name it.
type FormFactor byte

// Form factors. The models certified for FIPS 140 have bit 0x80 set too.
const (
	USBAKeychain  FormFactor = 0x01
	USBANano      FormFactor = 0x02
	USBCKeychain  FormFactor = 0x03
	USBCNano      FormFactor = 0x04
	USBCLightning FormFactor = 0x05
)
