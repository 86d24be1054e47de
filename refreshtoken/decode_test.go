package refreshtoken

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

func FuzzParsePage(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		page, err := parsePage(bytes.NewReader(data), tokenapi.ListRequest{})
		if err != nil {
			return
		}
		// What was understood comes back the same through the JSON form of the API.
		again, err := json.Marshal(map[string]any{"refreshTokens": page.RefreshTokens, "nextPageToken": page.NextPageToken})
		if err != nil {
			t.Fatal(err)
		}
		back, err := parsePage(bytes.NewReader(again), tokenapi.ListRequest{})
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if !reflect.DeepEqual(back, page) {
			t.Fatalf("%+v came back as %+v", page, back)
		}
	})
}

func FuzzRetryDelay(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if d := retryDelay([]json.RawMessage{data}); d < 0 || d > 365*24*time.Hour {
			t.Fatalf("%s is a wait of %v", data, d)
		}
	})
}

func FuzzParseOperation(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := parseOperation(bytes.NewReader(data))
		if err != nil {
			return
		}
		op := &RevokeOperation{clean: cleanerOf(func() string { return "hush-hush" })}
		judged, _ := op.asked.judge(state, nil)
		if err := op.update(methodOperation, "", judged); err != nil {
			checkErrorText(t, err)
			return
		}
		if !op.Done() {
			if reason := wrongOperationID(op.ID()); reason != "" {
				t.Fatalf("would poll an operation whose ID %s", reason)
			}
			return
		}
		final := op.status()
		result, err := op.outcome(&final)
		if (result == nil) == (err == nil) {
			t.Fatalf("got both or neither of %v and %v", result, err)
		}
		if err != nil {
			checkErrorText(t, err)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Fuzz(func(t *testing.T, status int, data []byte) {
		resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}}
		e := statusError(resp, data)
		e.complete(methodRevoke, cleanerOf(func() string { return "hush-hush" }))
		if e.Code == 0 {
			t.Fatal("an error has the code OK")
		}
		for _, d := range e.Details {
			if !json.Valid(d) {
				t.Fatalf("details %q are not JSON", d)
			}
			checkSilent(t, string(d))
		}
		checkErrorText(t, e)
	})
}

func checkErrorText(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	checkSilent(t, text)
	if strings.ContainsFunc(text, unicode.IsControl) {
		t.Fatalf("%q holds control characters", text)
	}
	if len(text) > 5000 {
		t.Fatalf("an error of %d bytes", len(text))
	}
}

func checkSilent(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "hush-hush") {
		t.Fatalf("%q holds the secret", text)
	}
}

// largePage has a thousand tokens, as a client sees them.
func largePage() []byte {
	const token = `{"id":"aje00000000000000000","clientInstanceInfo":"yc/0.141.0","clientId":"yc.oauth.public-sdk",` +
		`"subjectId":"aje00000000000000subj","createdAt":"2025-01-02T03:04:05.678901234Z","expiresAt":"2025-02-02T03:04:05Z",` +
		`"lastUsedAt":"2025-01-03T03:04:05.5Z","protectionLevel":"INSECURE_KEY_DPOP"}`
	return []byte(`{"refreshTokens":[` + strings.Repeat(token+",", 999) + token + `],"nextPageToken":"next"}`)
}

// pieces is a body that notes how much of it is asked for at a time.
type pieces struct {
	io.Reader
	largest int
}

func (p *pieces) Read(b []byte) (int, error) {
	p.largest = max(p.largest, len(b))
	return p.Reader.Read(b)
}

// TestPageIsReadAsItComes: there is no copy of the body, and a token costs itself and
// its ID.
func TestPageIsReadAsItComes(t *testing.T) {
	data := largePage()
	if n := testing.AllocsPerRun(10, func() {
		body := &pieces{Reader: bytes.NewReader(data)}
		page, err := parsePage(body, tokenapi.ListRequest{})
		if err != nil || len(page.RefreshTokens) != 1000 || page.NextPageToken != "next" || body.largest > jsonBuffer {
			t.Fatalf("%d tokens, %v, in pieces of %d", len(page.RefreshTokens), err, body.largest)
		}
		if err := cleanPage(t.Context(), page, cleanerOf(noSecret)); err != nil {
			t.Fatal(err)
		}
	}); n > 2100 {
		t.Errorf("%v allocations for a page of 1000 tokens", n)
	}
}

func BenchmarkParsePage(b *testing.B) {
	data := largePage()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if page, err := parsePage(bytes.NewReader(data), tokenapi.ListRequest{}); err != nil || len(page.RefreshTokens) != 1000 {
			b.Fatal(err)
		}
	}
}
