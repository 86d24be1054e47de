package refreshtoken_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// allocated is what f allocates in all, in MiB. Unlike the time that it takes, that does
// not depend on the machine.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) >> 20
}

// array is a JSON array of one value, in about size bytes.
func array(value string, size int) string {
	return "[" + value + strings.Repeat(","+value, size/(len(value)+1)) + "]"
}

// manyMembers is a JSON object in about size bytes.
func manyMembers(size int) string {
	var b strings.Builder
	b.WriteString(`{"m":0`)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `,"%x":0`, i)
	}
	return b.String() + "}"
}

// zipped is a response that net/http decompresses by itself.
func zipped(t *testing.T, status int, body string) func(int, http.ResponseWriter, *http.Request) {
	t.Helper()
	var wire bytes.Buffer
	z, err := gzip.NewWriterLevel(&wire, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(z, body); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(status)
		_, _ = w.Write(wire.Bytes())
	}
}

// TestSmallResponseTakesLittleMemory: a few KiB on the wire become megabytes of JSON, of
// which every three bytes can be an object.
func TestSmallResponseTakesLittleMemory(t *testing.T) {
	const size = 2 << 20
	operation := func(c *refreshtoken.Client) error { _, err := c.Operation(t.Context(), "op1"); return err }
	page := func(c *refreshtoken.Client) error {
		_, err := list(c, refreshtoken.ListOptions{PageSize: 10})
		return err
	}
	for _, c := range []struct {
		name   string
		status int
		body   string
		call   func(*refreshtoken.Client) error
		reason string // of a ResponseError; "" for none
	}{
		{"tokens", 200, `{"refreshTokens":` + array(`{}`, size) + `}`, page, "more refresh tokens than the 10 of the PageSize"},
		{"unknown member of a page", 200, `{"unknown":` + array(`{}`, size) + `}`, page, ""},
		{"unknown member of a token", 200, `{"refreshTokens":[{"unknown":` + array(`[]`, size) + `}]}`, page, ""},
		{"unknown member with many of its own", 200, `{"unknown":` + manyMembers(size) + `}`, page, "more than 10000 members"},
		{"long text", 200, `{"refreshTokens":[{"clientId":"` + strings.Repeat("a", size) + `"}]}`, page, ""},
		{"long number", 200, `{"refreshTokens":[{"protectionLevel":` + strings.Repeat("1", size) + `}]}`, page, ""},
		{"unknown member of an operation", 200, `{"id":"op1","unknown":` + array(`{}`, size) + `}`, operation, ""},
		{"unknown member of its metadata", 200, `{"id":"op1","metadata":{"unknown":` + array(`{}`, size) + `}}`, operation, ""},
		{"IDs in its metadata", 200, `{"id":"op1","metadata":{"refreshTokenIds":` + array(`""`, size) + `}}`, operation, "lists more than 100000 refresh tokens"},
		{"IDs in its response", 200, `{"id":"op1","done":true,"response":{"refreshTokenIds":` + array(`"a"`, size) + `}}`, operation, "lists more than 100000 refresh tokens"},
		{"what is no ID in its response", 200, `{"id":"op1","done":true,"response":{"refreshTokenIds":` + array(`{}`, size) + `}}`, operation, "refreshTokenIds is not an array of strings"},
		{"details of its error", 200, `{"id":"op1","error":{"code":9,"details":` + array(`{}`, size) + `}}`, operation, "the details have more than 4096 values"},
		{"one detail of its error", 200, `{"id":"op1","error":{"code":9,"details":[` + array(`0`, size) + `]}}`, operation, "the details have more than 4096 values"},
		{"text in a detail of its error", 200, `{"id":"op1","error":{"code":9,"details":[{"a":"` + strings.Repeat("a", size) + `"}]}}`, operation, "the details have a text of more than 65536 bytes"},
		{"message of its error", 200, `{"id":"op1","error":{"code":9,"message":"` + strings.Repeat("a", size) + `"}}`, operation, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := serve(t, zipped(t, c.status, c.body)).client()
			var err error
			if n := allocated(func() { err = c.call(client) }); n > 25 {
				t.Errorf("took %d MiB", n)
			}
			if c.reason == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			wantText(t, as[*refreshtoken.ResponseError](t, err).Error(), c.reason)
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// TestErrorTakesLittleMemory: what cannot be kept of an error is left out, and its HTTP
// status has to do.
func TestErrorTakesLittleMemory(t *testing.T) {
	const size = 1<<20 - 200
	for _, c := range []struct {
		name, body string
		code       refreshtoken.Code
	}{
		{"details", `{"code":9,"details":` + array(`{}`, size) + `}`, refreshtoken.CodeInvalidArgument},
		{"one detail", `{"code":9,"details":[{"a":` + array(`""`, size) + `}]}`, refreshtoken.CodeInvalidArgument},
		{"unknown member", `{"code":9,"unknown":` + array(`{}`, size) + `}`, refreshtoken.CodeFailedPrecondition},
		{"message", `{"code":9,"message":"` + strings.Repeat("a", size) + `"}`, refreshtoken.CodeFailedPrecondition},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := serve(t, zipped(t, http.StatusBadRequest, c.body)).client()
			var err error
			if n := allocated(func() { _, err = client.Revoke(t.Context(), refreshtoken.ByToken(someToken)) }); n > 20 {
				t.Errorf("took %d MiB", n)
			}
			if e := as[*refreshtoken.APIError](t, err); e.Code != c.code || len(e.Details) > 0 || len(e.Message) > 100 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestPageSizeIsKept: a page has at most as many tokens as were asked for, and never more
// than the API has in one.
func TestPageSizeIsKept(t *testing.T) {
	for _, c := range []struct {
		size, tokens int
		ok           bool
	}{{0, 1000, true}, {0, 1001, false}, {1000, 1000, true}, {1000, 1001, false}, {1, 1, true}, {1, 2, false}} {
		body := `{"refreshTokens":[{}` + strings.Repeat(",{}", c.tokens-1) + `]}`
		tokens, err := list(serve(t, answer(http.StatusOK, body)).client(), refreshtoken.ListOptions{PageSize: c.size})
		switch {
		case c.ok && (err != nil || len(tokens) != c.tokens):
			t.Errorf("%+v: got %d tokens and %v", c, len(tokens), err)
		case !c.ok:
			wantText(t, as[*refreshtoken.ResponseError](t, err).Error(), "the page has more", "refresh tokens", "HTTP 200")
		}
	}
}

// TestContextEndsWithinACompressedBody: net/http does not look at ctx while it
// decompresses.
func TestContextEndsWithinACompressedBody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read := 0
	hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		resp := response(http.StatusOK, "application/json", "")
		body := strings.NewReader(`{"unknown":` + array(`{}`, 8<<20) + `}`)
		resp.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
			if read++; read == 3 {
				cancel()
			}
			return body.Read(p)
		}))
		return resp, nil
	})}
	for _, err := range refreshtoken.NewClient(hc).List(ctx, refreshtoken.ListOptions{}) {
		if e := as[*refreshtoken.TransportError](t, err); !errors.Is(err, context.Canceled) || e.Temporary {
			t.Errorf("got %v", err)
		}
	}
	if read > 3 {
		t.Errorf("%d reads after the end of ctx", read-3)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestContextEndsWhileAnOperationIsCleaned: that can take longer than the network.
func TestContextEndsWhileAnOperationIsCleaned(t *testing.T) {
	for _, c := range []struct {
		ids  int
		kept bool // a short response that is there is not thrown away
	}{{1000, true}, {3000, false}} {
		ctx, cancel := context.WithCancel(t.Context())
		hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			body := `{"id":"op1","done":true,"response":{"refreshTokenIds":` + array(`"a"`, 4*c.ids) + `}}`
			resp := response(http.StatusOK, "application/json", body)
			cancel()
			return resp, nil
		})}
		_, err := refreshtoken.NewClient(hc).Revoke(ctx, refreshtoken.ByToken(someToken))
		if (err == nil) != c.kept || err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%d IDs: got %v", c.ids, err)
		}
	}
}

// TestContextEndsWhileAPageIsCleaned: each of its texts can take long.
func TestContextEndsWhileAPageIsCleaned(t *testing.T) {
	for _, c := range []struct {
		tokens int
		kept   bool // a short response that is there is not thrown away
	}{{200, true}, {1000, false}} {
		ctx, cancel := context.WithCancel(t.Context())
		client := refreshtoken.New(&fakeTransport{list: func(context.Context, tokenapi.Call, tokenapi.ListRequest) (*refreshtoken.Page, error) {
			page := &refreshtoken.Page{}
			for range c.tokens {
				page.RefreshTokens = append(page.RefreshTokens, &refreshtoken.RefreshToken{ID: "aje1"})
			}
			cancel()
			return page, nil
		}})
		var err error
		for _, err = range client.List(ctx, refreshtoken.ListOptions{}) {
			break
		}
		if (err == nil) != c.kept || err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%d tokens: got %v", c.tokens, err)
		}
	}
}

// TestLongTextsAreNotCleaned: no field of the API holds them, and each would take seconds.
func TestLongTextsAreNotCleaned(t *testing.T) {
	long := strings.Repeat("eyJ.", 4<<20)
	for name, exchange := range map[string]func(*refreshtoken.Client) (string, error){
		"a page": func(c *refreshtoken.Client) (string, error) {
			tokens, err := list(c, refreshtoken.ListOptions{})
			if err != nil || len(tokens) != 1 {
				return "", fmt.Errorf("%d tokens and %w", len(tokens), err)
			}
			return tokens[0].ID + tokens[0].ClientInstanceInfo, nil
		},
		"an operation": func(c *refreshtoken.Client) (string, error) {
			op, err := c.Revoke(t.Context(), refreshtoken.ByToken(someToken))
			if err != nil {
				return "", err
			}
			result, err := op.Wait(t.Context())
			return strings.Join(append(result.RefreshTokenIDs, result.OperationID, result.SubjectID), ""), err
		},
	} {
		client := refreshtoken.New(&fakeTransport{
			list: func(context.Context, tokenapi.Call, tokenapi.ListRequest) (*refreshtoken.Page, error) {
				return &refreshtoken.Page{RefreshTokens: []*refreshtoken.RefreshToken{{ID: long, ClientInstanceInfo: long}}}, nil
			},
			revoke: func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error) {
				return &operationState{ID: long, Done: true, Response: &tokenapi.Response{RefreshTokenIDs: []string{long}}}, nil
			},
		})
		if text, err := exchange(client); err != nil || strings.Contains(text, "eyJ") {
			t.Errorf("%s: got %.40q and %v", name, text, err)
		}
	}
	hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		resp := response(http.StatusTemporaryRedirect, "text/plain", "")
		resp.Header.Set("Location", "https://login.example/"+long)
		return resp, nil
	})}
	_, err := list(refreshtoken.NewClient(hc), refreshtoken.ListOptions{})
	wantText(t, as[*refreshtoken.ResponseError](t, err).Reason, "the response redirects, and")
}
