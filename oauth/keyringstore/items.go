package keyringstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/zalando/go-keyring"

	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/oauth"
)

const (
	// smallItem fits the CredentialBlob of Windows (2560 bytes), and a line for
	// the macOS security command (4096), in base64 with the longest service and
	// profile.
	smallItem = 2048

	// maxParts bounds what a damaged head can make a reader do.
	maxParts = 64

	// maxSession is the same everywhere, in bytes.
	maxSession = maxParts * smallItem
)

// items is a session in a keyring: the item of the profile's name, and, if that
// is only a head, parts.
type items struct {
	ring    ring
	limit   int // of an item, in bytes; at least smallItem
	service string
	profile string
}

// stored is what was found.
type stored struct {
	data []byte
	slot string // of its parts; "" if it has none
}

// A head is what the profile's item holds instead of a session that is too long
// for it. Members of the same version that it does not know are ignored.
type head struct {
	Version int    `json:"version"`
	Parts   int    `json:"parts"`  // how many, from 1 to maxParts
	Slot    string `json:"slot"`   // "a" or "b"
	SHA256  string `json:"sha256"` // of the whole session, in hex
}

const headVersion = 1

// otherSlot is where the parts of the next session go. The current ones must not
// be touched before the head is.
func otherSlot(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}

func (it items) part(slot string, i int) string {
	return fmt.Sprintf("%s/%s/%d", it.profile, slot, i)
}

// read returns the session as it was at some moment of the call. The error is
// oauth.ErrNoSession if there is none, and matches oauth.ErrSessionFormat if it
// is damaged.
func (it items) read(ctx context.Context) (stored, error) {
	value, err := it.get(ctx, it.profile)
	for {
		if errors.Is(err, keyring.ErrNotFound) {
			return stored{}, oauth.ErrNoSession
		}
		if err != nil {
			return stored{}, err
		}
		h, err := parseHead([]byte(value))
		if err != nil {
			return stored{}, err
		}
		if h == nil {
			return stored{data: []byte(value)}, nil
		}
		data, joinErr := it.join(ctx, h)
		if joinErr == nil {
			return stored{data, h.Slot}, nil
		}
		if !errors.Is(joinErr, oauth.ErrSessionFormat) {
			return stored{}, joinErr
		}
		// Parts that do not fit the head are damage, or those of the session
		// after next: then there is another head by now.
		last := value
		if value, err = it.get(ctx, it.profile); err == nil && value == last {
			return stored{}, joinErr
		}
		if err != nil && !errors.Is(err, keyring.ErrNotFound) {
			return stored{}, err
		}
		if err != nil {
			return stored{}, oauth.ErrNoSession
		}
	}
}

// parseHead returns nil if the value is no head, but perhaps a session.
func parseHead(value []byte) (*head, error) {
	members, err := strictjson.Object(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", oauth.ErrSessionFormat, err)
	}
	if _, ok := members["parts"]; !ok {
		return nil, nil
	}
	var h head
	if err := json.Unmarshal(value, &h); err != nil {
		return nil, fmt.Errorf("%w: a member of its head has a wrong type", oauth.ErrSessionFormat)
	}
	if h.Version != headVersion {
		return nil, fmt.Errorf("%w: its head has version %d, and this program knows version %d: a newer release may have written it",
			oauth.ErrSessionFormat, h.Version, headVersion)
	}
	if h.Parts < 1 || h.Parts > maxParts || (h.Slot != "a" && h.Slot != "b") {
		return nil, fmt.Errorf("%w: its head makes no sense", oauth.ErrSessionFormat)
	}
	return &h, nil
}

// join reads the parts.
func (it items) join(ctx context.Context, h *head) ([]byte, error) {
	var data []byte
	for i := range h.Parts {
		value, err := it.get(ctx, it.part(h.Slot, i))
		if errors.Is(err, keyring.ErrNotFound) {
			return nil, fmt.Errorf("%w: part %d of %d is missing", oauth.ErrSessionFormat, i+1, h.Parts)
		}
		if err != nil {
			return nil, err
		}
		data = append(data, value...)
	}
	if subtle.ConstantTimeCompare([]byte(hash(data)), []byte(h.SHA256)) != 1 {
		return nil, fmt.Errorf("%w: its parts do not belong together", oauth.ErrSessionFormat)
	}
	return data, nil
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// write stores a session in the place of the one whose parts are in slot. At
// every moment a reader finds the old one or the new one; the moment in between
// is when the profile's item changes.
func (it items) write(ctx context.Context, slot string, data []byte) error {
	value, used, parts := data, "", 0
	if len(data) > it.limit {
		used = otherSlot(slot)
		for rest := data; len(rest) > 0; parts++ {
			n := cut(rest, it.limit)
			if err := it.set(ctx, it.part(used, parts), string(rest[:n])); err != nil {
				return err
			}
			rest = rest[n:]
		}
		var err error
		if value, err = json.Marshal(head{headVersion, parts, used, hash(data)}); err != nil {
			return err
		}
	}
	if err := it.set(ctx, it.profile, string(value)); err != nil {
		return err
	}
	// A keyring that says nothing of a failure, or a second item of the same name
	// that another program made: better to know now than at the next renewal.
	if found, err := it.read(ctx); err != nil || !bytes.Equal(found.data, data) {
		return errors.Join(errors.New("the keyring did not keep what it was given"), err)
	}
	// The session is stored. What is left of others is a matter of cleanliness,
	// which the next write sees to if this one cannot.
	for _, s := range []string{"a", "b"} {
		from := 0
		if s == used {
			from = parts
		}
		_ = it.clear(ctx, s, from)
	}
	return nil
}

// cut returns how much of data goes into the next part, in whole characters:
// some keyrings take their secrets for text.
func cut(data []byte, limit int) int {
	if len(data) <= limit {
		return len(data)
	}
	n := limit
	for n > limit-utf8.UTFMax && !utf8.RuneStart(data[n]) {
		n--
	}
	return n
}

// erase removes the session, and what a crash may have left of others.
func (it items) erase(ctx context.Context) error {
	if err := it.remove(ctx, it.profile); err != nil {
		return err
	}
	for _, slot := range []string{"a", "b"} {
		if err := it.clear(ctx, slot, 0); err != nil {
			return err
		}
	}
	return nil
}

// discard removes all that can be there, also where gaps hide it from clear.
func (it items) discard(ctx context.Context) error {
	if err := it.remove(ctx, it.profile); err != nil {
		return err
	}
	for i := range maxParts {
		for _, slot := range []string{"a", "b"} {
			if err := it.remove(ctx, it.part(slot, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// clear removes the parts of a slot from a number on. Keyrings cannot list items,
// so they are looked for upwards and removed downwards: whatever interrupts it,
// no gap hides the rest from the next time.
func (it items) clear(ctx context.Context, slot string, from int) error {
	end := from
	for ; end < maxParts; end++ {
		_, err := it.get(ctx, it.part(slot, end))
		if errors.Is(err, keyring.ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
	}
	for i := end - 1; i >= from; i-- {
		if err := it.remove(ctx, it.part(slot, i)); err != nil {
			return err
		}
	}
	return nil
}

// remove removes all items of a name: other programs may have made several.
func (it items) remove(ctx context.Context, user string) error {
	for range 8 {
		err := it.call(ctx, func() error { return it.ring.Delete(it.service, user) })
		if errors.Is(err, keyring.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errors.New("the keyring did not remove an item")
}

func (it items) get(ctx context.Context, user string) (value string, err error) {
	err = it.call(ctx, func() error {
		value, err = it.ring.Get(it.service, user)
		return err
	})
	return value, err
}

func (it items) set(ctx context.Context, user, value string) error {
	return it.call(ctx, func() error { return it.ring.Set(it.service, user, value) })
}

// call makes no call any more when nobody waits for it.
func (it items) call(ctx context.Context, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := f()
	if err == nil || errors.Is(err, keyring.ErrNotFound) {
		return err
	}
	return &ringError{err}
}
