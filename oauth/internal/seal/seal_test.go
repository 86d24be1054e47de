package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
)

func gcm(number byte) cipher.AEAD {
	block, err := aes.NewCipher(bytes.Repeat([]byte{number}, 32))
	if err != nil {
		panic(err)
	}
	key, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return key
}

func sealer(t *testing.T, place string, inTheClear bool, keys map[uint32]cipher.AEAD) *Sealer {
	t.Helper()
	s := New(place, inTheClear)
	if err := s.SetKeys(Keys{ByVersion: keys}); err != nil {
		t.Fatal(err)
	}
	return s
}

func session(generation uint64) oauth.Session {
	return oauth.Session{Provider: "p", ClientID: "c", RefreshToken: oauth.Secret(fmt.Sprint("rt1.SECRET.", generation)), Generation: generation}
}

// Rows that other stores have written must stay readable: their seals are bound to these
// bytes, and their lineage is compared with this hash.
func TestFormat(t *testing.T) {
	s := New("public.t", false)
	if got, want := s.associated("k", 2, 3), "\x00\x00\x00\x00\x00\x00\x00\x1aycauth-go sealed session 1\x00\x00\x00\x00\x00\x00\x00\x08public.t"+
		"\x00\x00\x00\x00\x00\x00\x00\x01k\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03"; string(got) != want {
		t.Errorf("associated data %q, want %q", got, want)
	}
	if got := hex.EncodeToString(Lineage("k", oauth.Session{RefreshToken: "x"})); got != "434079f013e224d7a7c6366cf32420f6e97c31d243c86fbbd294fe00db6e00c2" {
		t.Errorf("lineage %s", got)
	}
}

func TestRow(t *testing.T) {
	s := sealer(t, "here", false, map[uint32]cipher.AEAD{1: gcm(1), 2: gcm(2)})
	row, err := s.Encode("k", session(5))
	if err != nil || row.KeyVersion != 2 || row.Generation != 5 || bytes.Contains(row.Session, []byte("SECRET")) {
		t.Fatalf("%+v, %v", row, err)
	}
	if got, err := s.Decode("k", row); err != nil || got.RefreshToken != session(5).RefreshToken {
		t.Errorf("%v, %v", got, err)
	}
	other, err := s.Encode("k", session(6))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		by     *Sealer
		key    string
		change func(*Row)
		want   error
	}{
		"another key":            {s, "l", func(*Row) {}, ErrSealKey},
		"another place":          {sealer(t, "there", false, map[uint32]cipher.AEAD{2: gcm(2)}), "k", func(*Row) {}, ErrSealKey},
		"another generation":     {s, "k", func(r *Row) { r.Generation++ }, ErrSealKey},
		"another version":        {s, "k", func(r *Row) { r.KeyVersion = 1 }, ErrSealKey},
		"an unknown version":     {s, "k", func(r *Row) { r.KeyVersion = 3 }, ErrKeyVersion},
		"a version out of range": {s, "k", func(r *Row) { r.KeyVersion = 1<<32 + 2 }, ErrKeyVersion},
		"a negative version":     {s, "k", func(r *Row) { r.KeyVersion = -2 }, ErrKeyVersion},
		"in the clear":           {s, "k", func(r *Row) { r.KeyVersion = 0 }, ErrInTheClear},
		"another lineage":        {s, "k", func(r *Row) { r.Base = other.Base }, oauth.ErrSessionFormat},
		"another session":        {s, "k", func(r *Row) { r.Session = other.Session }, ErrSealKey},
		"cut off":                {s, "k", func(r *Row) { r.Session = r.Session[:40] }, ErrSealKey},
		"cut off in the nonce":   {s, "k", func(r *Row) { r.Session = r.Session[:4] }, ErrSealKey},
		"empty":                  {s, "k", func(r *Row) { r.Session = []byte{} }, ErrSealKey},
		"no session, in the clear": {
			sealer(t, "here", true, nil), "k", func(r *Row) { r.KeyVersion, r.Session = 0, []byte("{}") }, oauth.ErrSessionFormat,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := row
			tc.change(&r)
			if got, err := tc.by.Decode(tc.key, r); !errors.Is(err, tc.want) || !got.IsZero() {
				t.Errorf("%v, %v", got, err)
			}
			if _, err := tc.by.Reseal(tc.key, r); !errors.Is(err, tc.want) {
				t.Errorf("Reseal: %v", err)
			}
		})
	}
}

func TestEncodeLimits(t *testing.T) {
	s := sealer(t, "here", true, nil)
	for name, tc := range map[string]struct {
		session oauth.Session
		want    bool
	}{
		"no session":     {oauth.Session{}, true},
		"not a session":  {oauth.Session{RefreshToken: "rt"}, false},
		"its generation": {session(math.MaxUint64), false},
		"in the clear":   {session(1), true},
	} {
		if _, err := s.Encode("k", tc.session); (err == nil) != tc.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := s.Decode("k", Row{}); err != nil || !got.IsZero() {
		t.Errorf("no row: %v, %v", got, err)
	}
}

func TestKeys(t *testing.T) {
	for name, tc := range map[string]struct {
		keys       Keys
		inTheClear bool
		want       uint32 // that seals; 0: an error, or none
		wrong      bool
	}{
		"the highest":    {Keys{ByVersion: map[uint32]cipher.AEAD{1: gcm(1), 7: gcm(7)}}, false, 7, false},
		"the chosen":     {Keys{map[uint32]cipher.AEAD{1: gcm(1), 7: gcm(7)}, 1}, false, 1, false},
		"not there":      {Keys{map[uint32]cipher.AEAD{1: gcm(1)}, 2}, false, 0, true},
		"version 0":      {Keys{ByVersion: map[uint32]cipher.AEAD{0: gcm(1), 1: gcm(1)}}, false, 0, true},
		"nil":            {Keys{ByVersion: map[uint32]cipher.AEAD{1: nil}}, false, 0, true},
		"none":           {Keys{}, false, 0, true},
		"none, in clear": {Keys{}, true, 0, false},
	} {
		s := New("here", tc.inTheClear)
		err := s.SetKeys(tc.keys)
		if (err != nil) != tc.wrong {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && s.Version() != tc.want {
			t.Errorf("%s: version %d seals", name, s.Version())
		}
	}
}

// Sessions that are not refreshed are told apart, too.
func TestLineage(t *testing.T) {
	rt, at := oauth.Session{RefreshToken: "x"}, oauth.Session{AccessToken: "x"}
	seen := map[string]bool{}
	for _, sum := range [][]byte{
		Lineage("k", oauth.Session{}), Lineage("k", rt), Lineage("k", at), Lineage("l", rt), Lineage("k", oauth.Session{AccessToken: "y"}),
	} {
		if seen[string(sum)] {
			t.Errorf("%x twice", sum)
		}
		seen[string(sum)] = true
	}
	full := oauth.Session{RefreshToken: "x", AccessToken: "y", Generation: 7}
	if string(Lineage("k", full)) != string(Lineage("k", rt)) {
		t.Error("the refresh token alone does not count")
	}
}

// A key that draws its nonces itself.
func TestRandomNonceAEAD(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	key, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	s := sealer(t, "here", false, map[uint32]cipher.AEAD{7: key})
	r, err := s.Encode("k", session(1))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Decode("k", r); err != nil || got.Generation != 1 || r.KeyVersion != 7 {
		t.Errorf("%v, %v", got, err)
	}
}
