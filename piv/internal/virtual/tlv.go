package virtual

import (
	"encoding/asn1"
	"errors"
	"fmt"
)

var errTLV = errors.New("malformed BER-TLV")

// tlv is one data object: tag, length, value. Tags have their class bits: 0x7f49 is two bytes.
type tlv struct {
	tag   uint32
	value []byte
}

// appendTLV appends a data object.
func appendTLV(b []byte, tag uint32, value []byte) []byte {
	first, number := byte(tag), int(tag&0x1f)
	if tag > 0xff {
		first, number = byte(tag>>8), int(tag&0x7f)
	}
	der, err := asn1.Marshal(asn1.RawValue{Class: int(first >> 6), IsCompound: first&0x20 != 0, Tag: number, Bytes: value})
	if err != nil {
		panic(fmt.Sprintf("virtual: tag %x: %v", tag, err))
	}
	return append(b, der...)
}

// parseTLV splits the first data object off b. Its tag has one byte or two.
func parseTLV(b []byte) (tlv, []byte, error) {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(b, &v)
	if err != nil || v.Tag > 0x7f {
		return tlv{}, nil, errTLV
	}
	tag := uint32(v.FullBytes[0])
	if tag&0x1f == 0x1f {
		tag = tag<<8 | uint32(v.FullBytes[1])
	}
	return tlv{tag, v.Bytes}, rest, nil
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
