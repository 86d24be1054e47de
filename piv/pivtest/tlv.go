package pivtest

import "errors"

var errTLV = errors.New("malformed BER-TLV")

// tlv is one data object: tag, length, value.
type tlv struct {
	tag   uint32
	value []byte
}

// appendTLV appends a data object with the shortest form of length that holds its value. Tags have their class bits: 0x7f49
// is two bytes.
func appendTLV(b []byte, tag uint32, value []byte) []byte {
	for shift := 24; shift > 0; shift -= 8 {
		if tag>>shift != 0 {
			b = append(b, byte(tag>>shift))
		}
	}
	b = append(b, byte(tag))
	switch n := len(value); {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	default:
		b = append(b, 0x82, byte(n>>8), byte(n))
	}
	return append(b, value...)
}

// parseTLV splits the first data object off b. Lengths need not be minimal: SP 800-73-4 says BER.
func parseTLV(b []byte) (tlv, []byte, error) {
	tag, b, err := parseTag(b)
	if err != nil {
		return tlv{}, nil, err
	}
	n, b, err := parseLength(b)
	if err != nil || n > len(b) {
		return tlv{}, nil, errTLV
	}
	return tlv{tag, b[:n:n]}, b[n:], nil
}

func parseTag(b []byte) (uint32, []byte, error) {
	if len(b) == 0 {
		return 0, nil, errTLV
	}
	tag, b := uint32(b[0]), b[1:]
	if tag&0x1f != 0x1f {
		return tag, b, nil
	}
	for range 3 {
		if len(b) == 0 {
			return 0, nil, errTLV
		}
		next := b[0]
		tag, b = tag<<8|uint32(next), b[1:]
		if next&0x80 == 0 {
			return tag, b, nil
		}
	}
	return 0, nil, errTLV
}

func parseLength(b []byte) (int, []byte, error) {
	if len(b) == 0 {
		return 0, nil, errTLV
	}
	first, b := int(b[0]), b[1:]
	if first < 0x80 {
		return first, b, nil
	}
	size := first & 0x7f
	if size == 0 || size > 2 || size > len(b) {
		return 0, nil, errTLV
	}
	n := 0
	for _, c := range b[:size] {
		n = n<<8 | int(c)
	}
	return n, b[size:], nil
}

// parseTLVs parses a sequence of data objects that fills b.
func parseTLVs(b []byte) ([]tlv, error) {
	var all []tlv
	for len(b) > 0 {
		var one tlv
		var err error
		if one, b, err = parseTLV(b); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// find returns the value of the first data object with the tag.
func find(all []tlv, tag uint32) ([]byte, bool) {
	for _, one := range all {
		if one.tag == tag {
			return one.value, true
		}
	}
	return nil, false
}

// parseTemplate parses b as one constructed data object with the tag and returns what it holds.
func parseTemplate(b []byte, tag uint32) ([]tlv, error) {
	outer, rest, err := parseTLV(b)
	if err != nil || outer.tag != tag || len(rest) > 0 {
		return nil, errTLV
	}
	return parseTLVs(outer.value)
}
