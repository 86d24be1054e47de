package grpctransport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	// The types of details that the services send have to be known to be read.
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// failed says what became of a call that returned err. Of ctx, that of the caller
// is meant.
func (x *exchange) failed(ctx context.Context, err error) error {
	st, _ := status.FromError(err)
	if said, _, quoted := strings.Cut(st.Message(), quotedBody); quoted && !x.answered() {
		st = status.New(st.Code(), said)
		err = st.Err()
	}
	awaitDeadline(ctx, st.Code())
	switch code := st.Code(); {
	case ctx.Err() != nil && (code == codes.Canceled || code == codes.DeadlineExceeded || x.source.get() != nil):
		return &refreshtoken.TransportError{Err: retry.Ended(ctx)}
	case x.source.get() != nil:
		// Final: a token source has tried again by itself where that helps.
		return &refreshtoken.TransportError{Err: x.source.get()}
	case unreadable(st):
		return x.wrong(errors.New(reasonOf(st)))
	case !x.answered() && !conclusive(code):
		return &refreshtoken.TransportError{Temporary: code == codes.Unavailable && !untrusted(st), Err: err}
	}
	e := apiErrorOf(ctx, st.Proto())
	e.Trace = x.trace()
	return e
}

// awaitDeadline waits for ctx to end where it is about to. The deadline travels
// with the call, and a server that is quick to say that it has passed can be ahead
// of the timer behind ctx.
func awaitDeadline(ctx context.Context, code codes.Code) {
	const about = 50 * time.Millisecond
	if deadline, ok := ctx.Deadline(); ok && code == codes.DeadlineExceeded && time.Until(deadline) < about {
		<-ctx.Done()
	}
}

// wrong is a response that does not follow the API.
func (x *exchange) wrong(err error) error {
	return &refreshtoken.ResponseError{Reason: err.Error(), Err: err, Trace: x.trace()}
}

// answered reports whether the server said anything. grpc-go reports its own
// failures as it does those of a server, but with no metadata.
func (x *exchange) answered() bool { return len(x.header) > 0 || len(x.trailer) > 0 }

// conclusive are the codes that mean the same whether a server sent them or not: an
// interceptor of this program can also reject a call. The others are those that a
// connection fails with, and NOT_FOUND: what is missing, only a server can know.
func conclusive(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Internal, codes.Unknown, codes.NotFound:
		return false
	}
	return true
}

// The texts that grpc-go has for failures of which it has no error value or code
// of their own.
const (
	tooLarge       = "grpc: received message" // … larger than max; after decompression larger than max
	notUnmarshaled = "grpc: failed to unmarshal"
	tooMuchHeader  = "peer header list size exceeded limit"
	badHandshake   = "authentication handshake failed"
	remoteAlert    = "remote error: tls: " // of crypto/tls
	quotedBody     = "\ndata: "            // before the body of a response that is not gRPC, such as the page of a proxy
)

// unreadable reports whether there was a response that could not be read.
func unreadable(st *status.Status) bool {
	return st.Code() == codes.ResourceExhausted && strings.HasPrefix(st.Message(), tooLarge) ||
		st.Code() == codes.Internal && (strings.HasPrefix(st.Message(), notUnmarshaled) || st.Message() == tooMuchHeader)
}

func reasonOf(st *status.Status) string {
	if st.Code() == codes.ResourceExhausted {
		return "the response is larger than 5 MiB: a smaller PageSize makes smaller pages"
	}
	if st.Message() == tooMuchHeader {
		return "the metadata of the response is larger than the connection allows"
	}
	if strings.Contains(st.Message(), errTooManyParts.Error()) {
		return errTooManyParts.Error()
	}
	return "the response is not the message that the API describes"
}

// untrusted reports whether it is the identity of the server, or of this client, that is
// wrong, which another attempt does not change. A handshake can also fail because the
// connection broke or the server was too slow. Only the text tells the two apart: all
// errors of crypto/x509 begin with "x509: ", and those of crypto/tls and the alerts about
// a certificate contain that word. Every other failure is one of the connection, except
// that of the key of the client's certificate, which may ask for a PIN.
//
// An alert about the client's certificate comes after the handshake in TLS 1.3.
func untrusted(st *status.Status) bool {
	_, reason, failed := strings.Cut(st.Message(), badHandshake)
	_, alert, alerted := strings.Cut(st.Message(), remoteAlert)
	return failed && (strings.Contains(reason, "x509: ") || strings.Contains(reason, "certificate") || strings.Contains(reason, "failed to sign")) ||
		alerted && (strings.Contains(alert, "certificate") || strings.HasPrefix(alert, "access denied"))
}

// apiErrorOf converts no more details once ctx has ended.
func apiErrorOf(ctx context.Context, st *statuspb.Status) *refreshtoken.APIError {
	e := &refreshtoken.APIError{Code: refreshtoken.Code(st.GetCode()), Message: st.GetMessage()}
	left := maxDetail
	for i, d := range st.GetDetails() {
		if i == maxDetails || ctx.Err() != nil {
			e.Details = append(e.Details, json.RawMessage(`{}`)) // so that nothing is concluded from the others
			break
		}
		e.Details = append(e.Details, detailOf(d, &left))
	}
	return e
}

// Bounds of the details that are kept of a status: their number, and the size of all of them
// in bytes, which is also that of all details over REST.
const (
	maxDetails = 100
	maxDetail  = 64 << 10
)

// detailOf is a detail as the REST face writes it, members in alphabetical order:
// protojson varies its white space from one build to the next. left is how many bytes of
// details may still be converted.
func detailOf(d *anypb.Any, left *int) json.RawMessage {
	size := len(d.GetTypeUrl())
	whole := len(d.GetValue()) <= maxDetail
	if whole {
		size += len(d.GetValue())
	}
	if size > *left {
		return json.RawMessage(`{}`)
	}
	*left -= size
	if !whole {
		return typeAlone(d)
	}
	if text, err := (protojson.MarshalOptions{Resolver: &oneType{Types: protoregistry.GlobalTypes}}).Marshal(d); err == nil {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		var v any
		if dec.Decode(&v) == nil {
			if out, err := json.Marshal(v); err == nil {
				return out
			}
		}
	}
	return typeAlone(d)
}

// oneType finds the message of one google.protobuf.Any, and none of those within it: to
// convert thousands of them, one within the other, takes a time that grows with the square
// of their number.
type oneType struct {
	*protoregistry.Types
	found bool
}

// FindMessageByURL implements protoregistry.MessageTypeResolver.
func (t *oneType) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if t.found {
		return nil, protoregistry.NotFound
	}
	t.found = true
	return t.Types.FindMessageByURL(url)
}

func typeAlone(d *anypb.Any) json.RawMessage {
	out, err := json.Marshal(map[string]string{"@type": d.GetTypeUrl()})
	if err != nil {
		return json.RawMessage(`{}`)
	}
	return out
}

func (x *exchange) trace() refreshtoken.Trace {
	return refreshtoken.Trace{RequestID: x.identifier("x-request-id"), ServerTraceID: x.identifier("x-server-trace-id")}
}

// identifier is in the header, or in the trailer of a response that has nothing
// else.
func (x *exchange) identifier(name string) string {
	for _, md := range []metadata.MD{x.header, x.trailer} {
		if ids := md.Get(name); len(ids) > 0 && ids[0] != "" {
			return ids[0]
		}
	}
	return ""
}
