package piv

import (
	"cmp"
	"fmt"
)

// Version is the version of a card's firmware.
type Version struct{ Major, Minor, Patch int }

// String returns the version with dots, such as "5.7.1".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

func (v Version) atLeast(w Version) bool {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Patch, w.Patch)) >= 0
}

// hasMetadata: GET METADATA tells whether a slot is empty, its policies and its
// public key (Yubico, "PIV extensions").
func (v Version) hasMetadata() bool { return v.atLeast(Version{5, 3, 0}) }

// hasSerial: the PIV application itself tells the serial number. Older firmware
// tells it in another application, and going there forgets the PIN.
func (v Version) hasSerial() bool { return v.atLeast(Version{5, 0, 0}) }

// forgetsPINWhenAsked: the command that asks whether the PIN was verified clears
// the answer (gravitational/teleport#36427).
func (v Version) forgetsPINWhenAsked() bool { return v == Version{5, 3, 1} }

// FormFactor is the shape of a card (Yubico, "Configuration reference").
type FormFactor byte

// Form factors. The zero value means unknown: firmware before 5 may not tell.
const (
	FormFactorUSBAKeychain  FormFactor = 0x01
	FormFactorUSBANano      FormFactor = 0x02
	FormFactorUSBCKeychain  FormFactor = 0x03
	FormFactorUSBCNano      FormFactor = 0x04
	FormFactorUSBCLightning FormFactor = 0x05
	FormFactorUSBABio       FormFactor = 0x06
	FormFactorUSBCBio       FormFactor = 0x07

	// FormFactorFIPS is set in addition on the FIPS series.
	FormFactorFIPS FormFactor = 0x80
)

// String returns the shape in words, such as "USB-C Nano (FIPS)".
func (f FormFactor) String() string {
	names := map[FormFactor]string{
		0:                       "unknown",
		FormFactorUSBAKeychain:  "USB-A Keychain",
		FormFactorUSBANano:      "USB-A Nano",
		FormFactorUSBCKeychain:  "USB-C Keychain",
		FormFactorUSBCNano:      "USB-C Nano",
		FormFactorUSBCLightning: "USB-C/Lightning",
		FormFactorUSBABio:       "USB-A Bio",
		FormFactorUSBCBio:       "USB-C Bio",
	}
	name, ok := names[f&^FormFactorFIPS]
	if !ok {
		return fmt.Sprintf("form factor 0x%02x", byte(f))
	}
	if f&FormFactorFIPS != 0 {
		name += " (FIPS)"
	}
	return name
}
