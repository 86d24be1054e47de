package pivtest

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
