package etcdstore

import (
	"crypto/cipher"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
)

// Keys seal the sessions. Each has a version, from 1, which is stored beside the sessions
// that it seals, so that keys can be replaced while programs run:
//
//  1. Give all programs the new key, and set Seal to the version of the old one: they can
//     open what the new key seals, and nothing is sealed with it yet.
//  2. Set Seal to the new version, or to 0, in all programs.
//  3. Call [Set.Reseal] in one of them. When [Set.Count] shows no session of the old
//     version, remove the old key.
//
// [Set.SetKeys] does steps 1 and 2 without a restart.
type Keys struct {
	// ByVersion are AEADs such as AES-256-GCM. Nonces are random. A key whose nonces
	// have less than 96 bits is rejected, unless they have none because it draws its
	// own. With AES-GCM, replace a key before it has sealed 2³² sessions.
	ByVersion map[uint32]cipher.AEAD

	// Seal is the version that seals. Optional. Default: the highest.
	Seal uint32
}

// String keeps fmt from printing keys.
func (k Keys) String() string {
	return fmt.Sprintf("etcdstore.Keys%v", slices.Sorted(maps.Keys(k.ByVersion)))
}

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue implements [slog.LogValuer].
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }
