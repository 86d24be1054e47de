package grpctransport_test

import (
	"errors"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ycauth/ycauth-go/refreshtoken"
	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

// rawCodec sends what it is given.
type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

func (rawCodec) Name() string { return "raw" }

// respond is a client of a server that sends one response to everything.
func respond(t *testing.T, response []byte) *refreshtoken.Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if md, _ := metadata.FromIncomingContext(s.Context()); !slices.Equal(md.Get("content-type"), []string{"application/grpc"}) {
			t.Errorf("content-type %q", md.Get("content-type"))
		}
		var request []byte
		if err := s.RecvMsg(&request); err != nil {
			return err
		}
		return s.SendMsg(response)
	}))
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	// The messages are those of the API whatever the connection is for otherwise.
	other := grpc.WithDefaultCallOptions(grpc.CallContentSubtype("json"))
	return grpctransport.NewClient(dial(t, l.Addr().String(), source{token: "t"}, other), quick()...)
}

// nested is a message with n empty ones in a field of it.
func nested(field protowire.Number, n int) []byte {
	return []byte(strings.Repeat(string(append(protowire.AppendTag(nil, field, protowire.BytesType), 0)), n))
}

// TestManyMessages: a small response can have millions of messages in it, which take far more
// memory than the response.
func TestManyMessages(t *testing.T) {
	const empty = 5<<19 - 100
	within := func(field protowire.Number, message []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), message)
	}
	list := func(c *refreshtoken.Client) error {
		for _, err := range c.List(t.Context(), refreshtoken.ListOptions{}) {
			return err
		}
		return nil
	}
	poll := func(c *refreshtoken.Client) error {
		_, err := c.Operation(t.Context(), "ajo1")
		return err
	}
	for _, c := range []struct {
		name     string
		response []byte
		call     func(*refreshtoken.Client) error
		want     string
	}{
		{"tokens", nested(1, empty), list, "more than 10000 messages"},
		{"tokens, one too many", nested(1, 10_001), list, "more than 10000 messages"},
		{"tokens, more than the API has in a page", nested(1, 10_000), list, "more than 1000 refresh tokens"},
		{"times of a token", within(1, nested(6, empty)), list, "more than 10000 messages"},
		{"details of an error", within(8, nested(3, empty)), poll, "more than 10000 messages"},
		{"cut off", append(nested(1, 10), 0x0a, 0x01), list, "not the message that the API describes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := respond(t, c.response)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := c.call(client)
			runtime.ReadMemStats(&after)
			var response *refreshtoken.ResponseError
			if !errors.As(err, &response) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
				t.Errorf("a response of %d bytes took %d MiB of memory", len(c.response), took>>20)
			}
		})
	}
	if err := list(respond(t, nil)); err != nil {
		t.Errorf("an empty response: %v", err)
	}
}
