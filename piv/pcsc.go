//go:build windows || (cgo && (linux || darwin || freebsd || openbsd))

package piv

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	gopiv "github.com/go-piv/piv-go/v2/piv"
)

// pcsc is the backend of builds with PC/SC. go-piv speaks PIV, over a connection
// that this package opens. Both need cgo everywhere but on Windows.
type pcsc struct{}

func (pcsc) readers() ([]string, error) { return scardReaders() }

func (pcsc) connect(reader string) (token, error) {
	l, err := dialLink(reader)
	if err != nil {
		return nil, err
	}
	v, err := l.selectPIV()
	if err != nil {
		l.abandon(err)
		return nil, err
	}
	if yk, ok := adopt(l.handle, v); ok {
		return yubikey{yk, l}, nil
	}
	return openExclusively(reader, l)
}

// openExclusively is for a go-piv that cannot be given a connection any more. The
// card has just answered, so that its Open has little reason to fail and lose the
// handle.
func openExclusively(reader string, l *link) (token, error) {
	if err := l.Close(); err != nil {
		return nil, err
	}
	yk, err := gopiv.Open(reader)
	if err != nil {
		return nil, numbered(err)
	}
	return yubikey{yk, yk}, nil
}

// numbered gives an error of go-piv its number.
func numbered(err error) error {
	if err == nil {
		return nil
	}
	var status interface{ Status() uint16 }
	if errors.As(err, &status) {
		return &statusError{status.Status(), err}
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if code, ok := returnCode(e); ok {
			return &pcscError{code, err}
		}
	}
	if strings.Contains(err.Error(), shortResponse) {
		return &pcscError{pcscNotTransacted, err}
	}
	return err
}

// shortResponse is in go-piv's error for a response without a status word, which
// has no number and no type (v2.5.0, Transmit).
const shortResponse = "scard response too short"

// returnCode reads the PC/SC return code from go-piv's error for it. The type and
// its only field are not exported (go-piv/piv-go#179), and its text is for people:
// the field is read by reflection. A test against a real PC/SC service notices
// when that stops to work.
func returnCode(err error) (uint32, bool) {
	v := reflect.ValueOf(err)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return 0, false
	}
	if t := v.Elem().Type(); t.Name() != "scErr" || t.PkgPath() != reflect.TypeFor[gopiv.Slot]().PkgPath() {
		return 0, false
	}
	rc := v.Elem().FieldByName("rc")
	if !rc.IsValid() || !rc.CanInt() {
		return 0, false
	}
	return uint32(rc.Int()), true // PC/SC return codes have 32 bits
}

// yubikey is go-piv on a connection.
type yubikey struct {
	yk         *gopiv.YubiKey
	connection interface{ Close() error }
}

func (y yubikey) version() Version {
	v := y.yk.Version()
	return Version{v.Major, v.Minor, v.Patch}
}

func (y yubikey) serial() (uint32, error) {
	n, err := y.yk.Serial()
	return n, numbered(err)
}

func (y yubikey) formFactor() (FormFactor, error) {
	l, ok := y.connection.(*link)
	if !ok {
		// Every go-piv that cannot be given a connection is newer than v2.6.0, the
		// first with this method.
		yk, ok := any(y.yk).(interface {
			FormFactor() (gopiv.Formfactor, error)
		})
		if !ok {
			return 0, nil
		}
		f, err := yk.FormFactor()
		return FormFactor(f), numbered(err)
	}
	config, err := l.readConfig()
	if err != nil {
		return 0, err
	}
	return parseFormFactor(config)
}

// parseFormFactor reads the form factor in the configuration of a device (Yubico,
// "Configuration reference"): a length, then data objects. It returns 0 where there
// is none, as with firmware 4.
func parseFormFactor(config []byte) (FormFactor, error) {
	if len(config) == 0 || int(config[0]) != len(config)-1 {
		return 0, fmt.Errorf("%x is not the configuration of a YubiKey", config)
	}
	shape, err := object(config[1:], configFormFactor)
	if len(shape) != 1 {
		return 0, err
	}
	return FormFactor(shape[0]), nil
}

func (y yubikey) keyInfo(slot Slot) (slotInfo, error) {
	info, err := y.yk.KeyInfo(gopivSlot(slot))
	if err != nil {
		return slotInfo{}, numbered(err)
	}
	return slotInfo{info.PublicKey, PINPolicy(info.PINPolicy), TouchPolicy(info.TouchPolicy)}, nil
}

func (y yubikey) attest(slot Slot) (*x509.Certificate, error) {
	cert, err := y.yk.Attest(gopivSlot(slot))
	if errors.Is(err, gopiv.ErrNotFound) {
		return nil, &statusError{statusIncorrectData, err} // go-piv swallows the number
	}
	return cert, numbered(err)
}

func (y yubikey) certificate(slot Slot) (*x509.Certificate, error) {
	cert, err := y.yk.Certificate(gopivSlot(slot))
	return cert, numbered(err)
}

func (y yubikey) pinTries() (n int, verified bool, err error) {
	n, err = y.yk.Retries()
	if err = numbered(err); err != nil && statusOf(err) == 0 && pcscCode(err) == 0 {
		// The card answered with success, for which go-piv has an error without
		// a number: there is nothing to count, the PIN is verified.
		return 0, true, nil
	}
	return n, false, err
}

func (y yubikey) verifyPIN(pin string) error { return numbered(y.yk.VerifyPIN(pin)) }

func (y yubikey) managementKey(pin string) ([]byte, error) {
	m, err := y.yk.Metadata(pin)
	if err != nil || m.ManagementKey == nil {
		return nil, numbered(err)
	}
	return *m.ManagementKey, nil
}

func (y yubikey) generate(managementKey []byte, slot Slot, spec KeySpec) (crypto.PublicKey, error) {
	if managementKey == nil {
		managementKey = gopiv.DefaultManagementKey
	}
	public, err := y.yk.GenerateKey(managementKey, gopivSlot(slot), gopiv.Key{
		Algorithm:   gopivAlgorithms[spec.Algorithm],
		PINPolicy:   gopiv.PINPolicy(spec.PINPolicy),
		TouchPolicy: gopiv.TouchPolicy(spec.TouchPolicy),
	})
	err = numbered(err)
	// Which of its two steps failed, go-piv tells only in words. Without a number
	// it was the check of the key's length, or of the card's own answer.
	if err != nil && pcscCode(err) == 0 && strings.HasPrefix(err.Error(), "authenticating with management key") {
		return nil, because(ErrManagementKey, err)
	}
	return public, err
}

// metadata returns one object of GET METADATA (Yubico, "PIV extensions") about
// what go-piv asks nothing about, nil if it is not there.
func (y yubikey) metadata(reference, tag byte) ([]byte, error) {
	l, ok := y.connection.(*link)
	if !ok {
		return nil, nil
	}
	response, err := l.command(insGetMetadata, 0, reference, nil)
	if err != nil {
		return nil, err
	}
	return object(response, tag)
}

// object returns the first of some data objects that has the tag, nil if none does.
func object(all []byte, tag byte) ([]byte, error) {
	for len(all) > 0 {
		var v asn1.RawValue
		var err error
		if all, err = asn1.Unmarshal(all, &v); err != nil {
			return nil, err
		}
		if v.FullBytes[0] == tag {
			return v.Bytes, nil
		}
	}
	return nil, nil
}

const (
	referencePIN        = 0x80
	referenceManagement = 0x9b

	metadataPolicies = 2
	metadataFactory  = 5

	configFormFactor = 4
)

func (y yubikey) managementTouch() (TouchPolicy, error) {
	policies, err := y.metadata(referenceManagement, metadataPolicies)
	if len(policies) != 2 {
		return 0, err
	}
	return TouchPolicy(policies[1]), nil
}

func (y yubikey) factoryPIN() (bool, error) {
	factory, err := y.metadata(referencePIN, metadataFactory)
	return len(factory) == 1 && factory[0] == 1, err
}

func (y yubikey) store(managementKey []byte, slot Slot, der []byte) error {
	l, ok := y.connection.(*link)
	if !ok {
		if managementKey == nil {
			managementKey = gopiv.DefaultManagementKey
		}
		return numbered(y.yk.SetCertificate(managementKey, gopivSlot(slot), &x509.Certificate{Raw: der}))
	}
	// Not by go-piv, which would authenticate again: that can take another touch.
	id := gopivSlot(slot).Object
	data := slices.Concat(
		tlv(0x5c, []byte{byte(id >> 16), byte(id >> 8), byte(id)}),
		tlv(0x53, slices.Concat(
			tlv(0x70, der),
			tlv(0x71, []byte{0}), // not compressed
			tlv(0xfe, nil),       // no error detection code
		)),
	)
	_, err := l.command(insPutData, 0x3f, 0xff, data)
	return err
}

// tlv is a data object with a tag of one byte (NIST SP 800-73-4 part 2, section
// 2.2). asn1.Marshal has no error for it.
func tlv(tag byte, value []byte) []byte {
	der, _ := asn1.Marshal(asn1.RawValue{Class: int(tag >> 6), IsCompound: tag&0x20 != 0, Tag: int(tag & 0x1f), Bytes: value})
	return der
}

func (y yubikey) sign(slot Slot, public crypto.PublicKey, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	// The policy "never" is not the key's: it keeps go-piv from sending PIN
	// commands of its own.
	private, err := y.yk.PrivateKey(gopivSlot(slot), public, gopiv.KeyAuth{PINPolicy: gopiv.PINPolicyNever})
	if err != nil {
		return nil, numbered(err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T does not sign", public)
	}
	signature, err := signer.Sign(rand.Reader, digest, opts)
	return signature, numbered(err)
}

func (y yubikey) close() error { return numbered(y.connection.Close()) }

var gopivAlgorithms = map[Algorithm]gopiv.Algorithm{
	AlgorithmP256:    gopiv.AlgorithmEC256,
	AlgorithmP384:    gopiv.AlgorithmEC384,
	AlgorithmEd25519: gopiv.AlgorithmEd25519,
	AlgorithmRSA2048: gopiv.AlgorithmRSA2048,
	AlgorithmRSA3072: gopiv.AlgorithmRSA3072,
	AlgorithmRSA4096: gopiv.AlgorithmRSA4096,
}

// gopivSlot adds the number of the slot's certificate object.
func gopivSlot(slot Slot) gopiv.Slot {
	switch slot {
	case SlotAuthentication:
		return gopiv.SlotAuthentication
	case SlotSignature:
		return gopiv.SlotSignature
	case SlotKeyManagement:
		return gopiv.SlotKeyManagement
	case SlotCardAuthentication:
		return gopiv.SlotCardAuthentication
	case slotAttestation:
		return gopiv.Slot{Key: uint32(slot), Object: 0x5fff01}
	}
	retired, _ := gopiv.RetiredKeyManagementSlot(uint32(slot)) // Options were checked
	return retired
}
