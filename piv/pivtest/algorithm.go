package pivtest

import "fmt"

// Algorithm is an algorithm identifier as it stands in a command (SP 800-78-4, table 6-2, and Yubico extensions to PIV).
type Algorithm byte

// Algorithms of management keys and of key pairs. From RSA3072 on, in this list, they need firmware 5.7.
const (
	TripleDES Algorithm = 0x03
	AES128    Algorithm = 0x08
	AES192    Algorithm = 0x0a
	AES256    Algorithm = 0x0c

	P256    Algorithm = 0x11
	P384    Algorithm = 0x14
	RSA1024 Algorithm = 0x06
	RSA2048 Algorithm = 0x07
	RSA3072 Algorithm = 0x05
	RSA4096 Algorithm = 0x16
	Ed25519 Algorithm = 0xe0
	X25519  Algorithm = 0xe1
)

var algorithmNames = map[Algorithm]string{
	TripleDES: "3DES", AES128: "AES-128", AES192: "AES-192", AES256: "AES-256",
	P256: "P-256", P384: "P-384", Ed25519: "Ed25519", X25519: "X25519",
	RSA1024: "RSA-1024", RSA2048: "RSA-2048", RSA3072: "RSA-3072", RSA4096: "RSA-4096",
}

// String returns the usual name of the algorithm.
func (a Algorithm) String() string {
	if name, ok := algorithmNames[a]; ok {
		return name
	}
	return fmt.Sprintf("algorithm %#02x", byte(a))
}

// rsaBits returns the size of an RSA modulus, 0 for other algorithms.
func (a Algorithm) rsaBits() int {
	switch a {
	case RSA1024:
		return 1024
	case RSA2048:
		return 2048
	case RSA3072:
		return 3072
	case RSA4096:
		return 4096
	default:
		return 0
	}
}

// keyLen returns the length in bytes of a management key, 0 for other algorithms.
func (a Algorithm) keyLen() int {
	switch a {
	case AES128:
		return 16
	case TripleDES, AES192:
		return 24
	case AES256:
		return 32
	default:
		return 0
	}
}
