package refreshtoken

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/ycauth/ycauth-go/internal/redact"
	"github.com/ycauth/ycauth-go/internal/retry"
)

// A cleaner takes the secrets of a call out of a text of the server. A closure
// holds them, so that nothing prints them along with what holds the cleaner.
type cleaner func(string) string

func cleanerOf(secret func() string) cleaner {
	token := secret()
	text := redact.New(token, printable(token)).Text // identifiers lose their spaces
	return func(s string) string {
		if len(s) > maxText {
			return tooLong
		}
		return text(s)
	}
}

// tooLong is in the place of a text that no field of the API holds. It takes a second to
// clean a MiB of the worst, and ctx does not end that.
const tooLong = "(a text longer than 64 KiB)"

// noSecret is for calls that carry none beside the IAM token.
func noSecret() string { return "" }

// cleanPage cleans the texts that may be printed. With [cleanOperation] and [explain],
// which do the same for operations and errors, this is the boundary that everything a
// server sends goes through: a server may send back what it was sent, in any place. It
// leaves NextPageToken as it is: it is opaque, and goes back to the server.
func cleanPage(ctx context.Context, p *Page, clean cleaner) error {
	c := cleaning{ctx: ctx, clean: credentials}
	for _, t := range p.RefreshTokens {
		if t == nil {
			continue
		}
		id := t.ID
		texts := []*string{&t.ID, &t.ClientInstanceInfo, &t.ClientID, &t.SubjectID, (*string)(&t.ProtectionLevel)}
		if err := c.texts(texts...); err != nil {
			return err
		}
		if t.ID != id {
			t.ID = "" // no token is revoked by another ID than its own
		}
	}
	p.clean(clean)
	return nil
}

// credentials takes out what looks like a credential, such as the IAM token of the request,
// and nothing else: a client can be searched for by its description, as it came.
func credentials(s string) string {
	if len(s) > maxText {
		return ""
	}
	return redact.Credentials(s)
}

func cleanOperation(ctx context.Context, o *judged, clean cleaner) error {
	// An operation is not asked for with a credential in its ID. One that has ended
	// is not asked for at all, and then an ID that cannot be does no harm.
	if o.ID != clean(o.ID) || ended(&o.operation) && wrongOperationID(o.ID) != "" {
		o.ID = ""
	}
	lists := [][]string{o.Metadata.RefreshTokenIDs}
	if o.Response != nil {
		lists = append(lists, o.Response.RefreshTokenIDs)
	}
	c := cleaning{ctx: ctx, clean: clean}
	err := c.texts(&o.Metadata.SubjectID)
	for _, ids := range lists {
		for i := 0; i < len(ids) && err == nil; i++ {
			err = c.texts(&ids[i])
		}
	}
	(*Trace)(&o.Trace).clean(clean)
	return err
}

// A cleaning of the texts in a response ends with ctx, but not where there is little to do:
// what a server said is not thrown away.
type cleaning struct {
	ctx   context.Context
	clean cleaner
	done  int // bytes, and some for each text
}

func (c *cleaning) texts(texts ...*string) error {
	for _, text := range texts {
		if c.done += len(*text) + 8; c.done > jsonBuffer && c.ctx.Err() != nil {
			return &TransportError{Err: retry.Ended(c.ctx)}
		}
		*text = c.clean(*text)
	}
	return nil
}

func (t *Trace) clean(clean cleaner) {
	t.RequestID, t.ServerTraceID = identifier(t.RequestID, clean), identifier(t.ServerTraceID, clean)
}

// identifier sanitizes an identifier of the server. What is not printable goes before
// the last cleaning, because to take it out can put a secret together again. The first
// cleaning finds what white space is a part of. The cut comes last, because a part of a
// secret could not be found any more.
func identifier(id string, clean cleaner) string {
	if id == "" || len(id) > maxText {
		return ""
	}
	id = printable(clean(printable(clean(id))))
	return id[:min(len(id), maxIdentifier)]
}

// printable is s without everything but visible ASCII.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x21 || r > 0x7e {
			return -1
		}
		return r
	}, s)
}

// maxIdentifier is far above the length of a UUID, in bytes.
const maxIdentifier = 128

// explain completes an error of a transport: with the method that failed, and
// without the secrets that a server may have sent back.
func explain(err error, method string, clean cleaner) error {
	var api *APIError
	var response *ResponseError
	var transport *TransportError
	switch {
	case errors.As(err, &api):
		api.complete(method, clean)
	case errors.As(err, &response):
		response.Method, response.Reason = method, clean(response.Reason)
		response.clean(clean)
	case errors.As(err, &transport):
		transport.Method = method
		if transport.Err != nil {
			transport.text = clean(transport.Err.Error())
		}
	default:
		return &TransportError{Method: method, Err: err, text: clean(err.Error())}
	}
	return err
}

// complete is what [explain] does for an APIError, also for that of an operation.
func (e *APIError) complete(method string, clean cleaner) {
	e.Method = method
	e.Message = clean(e.Message)
	e.clean(clean)
	if number := strconv.Itoa(int(e.Code)); clean(number) != number {
		e.Code = CodeUnknown // a token of digits alone can be sent back as a number
	}
	values, size := maxDetailValues, maxDetails
	for i, d := range e.Details {
		if size -= len(d); size < 0 {
			e.Details[i] = json.RawMessage(`{}`)
			continue
		}
		e.Details[i] = cleanJSON(d, clean, &values)
	}
	e.RetryAfter = max(e.RetryAfter, retryDelay(e.Details))
}

// cleanJSON cleans the strings and numbers in a JSON text. One that needs no cleaning
// is left as it is, byte for byte. Nothing is left of one that has more values than are
// left, or cannot be read.
func cleanJSON(data json.RawMessage, clean cleaner, left *int) json.RawMessage {
	v, err := parseValue(data, left)
	if err != nil {
		return json.RawMessage(`{}`)
	}
	changed := false
	v = cleanValue(v, func(s string) string {
		c := clean(s)
		changed = changed || c != s
		return c
	})
	if !changed {
		return data
	}
	out, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(`{}`)
	}
	return out
}

// cleanValue applies clean to every string in a decoded JSON value, names included,
// and to every number. A number that does not stay what it is becomes a string.
func cleanValue(v any, clean cleaner) any {
	switch v := v.(type) {
	case string:
		return clean(v)
	case json.Number:
		if text := clean(v.String()); text != v.String() {
			return text
		}
	case []any:
		for i := range v {
			v[i] = cleanValue(v[i], clean)
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[clean(k)] = cleanValue(x, clean)
		}
		return out
	}
	return v
}
