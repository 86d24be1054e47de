package grpctransport

import (
	"errors"
	"strconv"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxParts is the most messages that a response may have in it. An empty one takes two bytes
// of a response, and some hundred of memory. The largest page has 4000: 1000 tokens with
// three times each.
const maxParts = 10_000

var errTooManyParts = errors.New("the response has more than " + strconv.Itoa(maxParts) + " messages in it")

// A codec is that of grpc-go, except that it counts the messages in a response before it
// builds them.
type codec struct{ encoding.CodecV2 }

var counting = codec{encoding.GetCodecV2(protocodec.Name)}

// Name implements encoding.CodecV2. It is empty, so that the content-type stays that of a
// call without a codec of its own.
func (codec) Name() string { return "" }

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(proto.Message); ok {
		buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer buf.Free()
		left := maxParts
		if !countParts(buf.ReadOnlyData(), m.ProtoReflect().Descriptor(), &left) {
			return errTooManyParts
		}
		data = mem.BufferSlice{buf}
	}
	return c.CodecV2.Unmarshal(data, v)
}

// countParts subtracts the messages in b, one of type d, from left, and reports whether there
// are no more than that. It stops at what is malformed, which is an error of Unmarshal.
func countParts(b []byte, d protoreflect.MessageDescriptor, left *int) bool {
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return true
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, wire, b); n < 0 {
			return true
		}
		field := d.Fields().ByNumber(number)
		if field != nil && field.Message() != nil && wire == protowire.BytesType {
			if *left--; *left < 0 {
				return false
			}
			part, _ := protowire.ConsumeBytes(b)
			if !countParts(part, field.Message(), left) {
				return false
			}
		}
		b = b[n:]
	}
	return true
}
