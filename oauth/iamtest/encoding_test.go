package iamtest

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// The files in testdata/protojson were made by protojson from the official
// messages (github.com/yandex-cloud/go-genproto v0.137.0), and compacted.
func TestProtoJSON(t *testing.T) {
	at := func(ns int) time.Time { return time.Date(2025, 11, 20, 17, 53, 1, ns, time.UTC) }
	list := &iamapi.ListResponse{
		RefreshTokens: []iamapi.RefreshToken{{
			ID: "ajr00000000000000001", ClientInstanceInfo: "yc/0.141.0", ClientID: "yc.oauth.public-sdk",
			SubjectID: "ajeiamtestuser000001", CreatedAt: at(0), ExpiresAt: at(120_000_000),
			LastUsedAt: at(123_456_000), ProtectionLevel: string(SecureKeyDPoP),
		}, {
			ID:                 "ajr00000000000000002",
			ClientInstanceInfo: "<a href=\"x\\y\">&\u2028\u2029\b\f\n\r\t\x00\x1f\x7f é 😀/'",
			CreatedAt:          at(123_456_789).In(time.FixedZone("MSK", 3*60*60)), ProtectionLevel: string(NoProtection),
		}, {
			ID: "ajr00000000000000003", ProtectionLevel: string(Unspecified),
		}},
		NextPageToken: "bmV4dA",
	}
	op := func(done bool, result *iamapi.RevokeResponse, err *iamapi.Status, ids ...string) *iamapi.Operation {
		return &iamapi.Operation{
			ID: "ajo00000000000000001", Description: "Revoke refresh tokens", CreatedAt: at(0),
			CreatedBy: "ajeiamtestuser000001", ModifiedAt: at(1_000), Done: done,
			Metadata: iamapi.RevokeMetadata{SubjectID: "ajeiamtestuser000001", RefreshTokenIDs: ids}, Response: result, Error: err,
		}
	}
	tooLarge := &iamapi.Status{Code: iamapi.InvalidArgument, Message: "page_size: too large", Field: "page_size"}
	for name, got := range map[string][]byte{
		"list":              appendPage(list, nil),
		"list_empty":        appendPage(new(iamapi.ListResponse), nil),
		"operation_running": appendOperation(op(false, nil, nil, "a", "b"), nil),
		"operation_done":    appendOperation(op(true, &iamapi.RevokeResponse{RefreshTokenIDs: []string{"a", "b"}}, nil, "a", "b"), nil),
		"operation_nothing": appendOperation(op(true, &iamapi.RevokeResponse{}, nil), nil),
		"operation_failed":  appendOperation(op(true, nil, &iamapi.Status{Code: iamapi.Internal, Message: "out of order"}), nil),
		"status":            appendStatus(tooLarge, nil, "7d1ec2b2-0000-4000-8000-000000000000"),
		"endpoints":         appendEndpoints([]iamapi.Endpoint{{ID: "iam", Address: "127.0.0.1:1"}, {ID: "operation", Address: "127.0.0.1:2"}}),
	} {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", "protojson", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, bytes.TrimSuffix(want, []byte("\n"))) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func FuzzString(f *testing.F) {
	for _, s := range []string{"", "yc/0.141.0", "\"\\\b\f\n\r\t\x00\x1f\x7f", "\u2028<&>😀", "\xff\xc0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quoted := appendString(nil, s)
		var got string
		if err := json.Unmarshal(quoted, &got); err != nil {
			t.Fatalf("%q: %v", quoted, err)
		}
		if want := string([]rune(s)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestListIsCheap: a page of tokens is put together without work for each of them, so
// that what a benchmark measures is the client.
func TestListIsCheap(t *testing.T) {
	srv := Start(t)
	srv.Seed(1000, nil)
	if n := testing.AllocsPerRun(10, func() {
		resp, err := iamapi.Of(srv).ListRefreshTokens(iamapi.Caller{SubjectID: srv.options().Subject}, iamapi.ListRequest{PageSize: maxPageSize})
		if err != nil || len(resp.RefreshTokens) != 1000 || len(appendPage(resp, nil)) < 100_000 {
			t.Fatal(err)
		}
	}); n > 20 {
		t.Errorf("%v allocations for a page", n)
	}
}

func TestMutations(t *testing.T) {
	tests := []struct{ in, duplicate, unknown string }{
		{`{"a":1,"b":2}`, `{"a":"duplicate","a":1,"b":2}`, `{"futureString":"x","futureObject":{"list":[1,null,{"deep":true}]},"futureNumber":12345678901234567890,"a":1,"b":2}`},
		{`{}`, `{}`, `{"futureString":"x","futureObject":{"list":[1,null,{"deep":true}]},"futureNumber":12345678901234567890}`},
		{`text`, `text`, `text`},
		{`{"`, `{"`, ``},
	}
	for _, tt := range tests {
		if got := duplicateMember([]byte(tt.in)); string(got) != tt.duplicate {
			t.Errorf("duplicateMember(%s) = %s, want %s", tt.in, got, tt.duplicate)
		}
		if tt.unknown == "" {
			continue
		}
		if got := unknownMembers([]byte(tt.in)); string(got) != tt.unknown {
			t.Errorf("unknownMembers(%s) = %s, want %s", tt.in, got, tt.unknown)
		}
	}
}
