package refreshtoken_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// pages answers by the page token: the body of each page.
func pages(t *testing.T, bodies map[string]string) *server {
	t.Helper()
	return serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		body, ok := bodies[r.URL.Query().Get("pageToken")]
		if !ok {
			answerJSON(w, http.StatusBadRequest, `{"code":3,"message":"no such page"}`)
			return
		}
		answerJSON(w, http.StatusOK, body)
	})
}

func ids(tokens []*refreshtoken.RefreshToken) string {
	var s []string
	for _, t := range tokens {
		s = append(s, t.ID)
	}
	return strings.Join(s, " ")
}

func TestList(t *testing.T) {
	s := pages(t, map[string]string{
		"": `{"refreshTokens":[{
			"id":"aje1","clientInstanceInfo":"yc/0.141.0","clientId":"yc.oauth.public-sdk","subjectId":"aje9",
			"createdAt":"2025-01-02T03:04:05.678901234Z","expiresAt":"2025-02-02T03:04:05Z","lastUsedAt":"2025-01-03T06:04:05.5+03:00",
			"protectionLevel":"SECURE_KEY_DPOP"},{"id":"aje2"}],"nextPageToken":"p2"}`,
		"p2":      `{"nextPageToken":"p3"}`, // empty, and not the last
		"p3":      `{"refreshTokens":[],"nextPageToken":"p/4+ &="}`,
		"p/4+ &=": `{"refreshTokens":[{"id":"aje3"}],"nextPageToken":""}`,
	})
	tokens, err := list(s.client(), refreshtoken.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(tokens); got != "aje1 aje2 aje3" {
		t.Fatalf("got the tokens %s", got)
	}
	want := &refreshtoken.RefreshToken{
		ID: "aje1", ClientInstanceInfo: "yc/0.141.0", ClientID: "yc.oauth.public-sdk", SubjectID: "aje9",
		CreatedAt:       time.Date(2025, 1, 2, 3, 4, 5, 678901234, time.UTC),
		ExpiresAt:       time.Date(2025, 2, 2, 3, 4, 5, 0, time.UTC),
		LastUsedAt:      time.Date(2025, 1, 3, 3, 4, 5, 500000000, time.UTC),
		ProtectionLevel: refreshtoken.SecureKeyDPoP,
	}
	if !reflect.DeepEqual(tokens[0], want) {
		t.Errorf("got %+v, want %+v", tokens[0], want)
	}
	if want := (&refreshtoken.RefreshToken{ID: "aje2", ProtectionLevel: refreshtoken.ProtectionLevelUnspecified}); !reflect.DeepEqual(tokens[1], want) {
		t.Errorf("missing members: got %+v, want %+v", tokens[1], want)
	}
	if n := len(s.seen()); n != 4 {
		t.Errorf("%d requests for 4 pages", n)
	}
	if n := s.open.Load(); n != 0 {
		t.Errorf("%d bodies were not closed", n)
	}
}

// TestListKeepsTheConnection: each page is read to its end.
func TestListKeepsTheConnection(t *testing.T) {
	s := pages(t, map[string]string{
		"":  `{"refreshTokens":[{"id":"aje1"}],"nextPageToken":"2"}` + strings.Repeat(" ", 40<<10),
		"2": `{"nextPageToken":"3"}` + "\n",
		"3": `{}`,
	})
	var reused []bool
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = append(reused, c.Reused) }})
	for _, err := range s.client().List(ctx, refreshtoken.ListOptions{NoLookahead: true}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := []bool{false, true, true}; !slices.Equal(reused, want) {
		t.Errorf("connections were reused: %v, want %v", reused, want)
	}
}

func TestListRequest(t *testing.T) {
	for _, c := range []struct {
		name string
		opts refreshtoken.ListOptions
		want url.Values
	}{
		{"nothing set", refreshtoken.ListOptions{}, url.Values{}},
		{"everything set", refreshtoken.ListOptions{
			SubjectID: "aje+1", PageSize: 1000, PageToken: "a&b=c/+ %",
			Filter: refreshtoken.Filter{
				ClientID: "yc.oauth.public-sdk", ClientInstanceInfo: "yc/0.141.0 & more",
				ProtectionLevels: []refreshtoken.ProtectionLevel{refreshtoken.InsecureKeyDPoP, refreshtoken.SecureKeyDPoP},
			},
		}, url.Values{
			"subjectId": {"aje+1"}, "pageSize": {"1000"}, "pageToken": {"a&b=c/+ %"},
			"filter": {`client_id="yc.oauth.public-sdk" AND client_instance_info="yc/0.141.0 & more" AND protection_level IN ("INSECURE_KEY_DPOP", "SECURE_KEY_DPOP")`},
		}},
		{"at the limits, in characters", refreshtoken.ListOptions{
			SubjectID: strings.Repeat("я", 50), PageToken: strings.Repeat("я", 2000),
		}, url.Values{"subjectId": {strings.Repeat("я", 50)}, "pageToken": {strings.Repeat("я", 2000)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, `{}`))
			if _, err := list(s.client(refreshtoken.WithUserAgent("mycli/1.2.0"), refreshtoken.WithTraceID("trace-7")), c.opts); err != nil {
				t.Fatal(err)
			}
			r := s.seen()[0]
			if r.method != http.MethodGet || r.path != "/iam/v1/refreshTokens" || r.body != "" {
				t.Errorf("got %s %s with body %q", r.method, r.path, r.body)
			}
			if got := url.Values(r.query); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got the query %v, want %v", got, c.want)
			}
			for name, want := range map[string]string{
				"Accept": "application/json", "User-Agent": "mycli/1.2.0", "X-Client-Trace-Id": "trace-7",
				"Idempotency-Key": "", "Content-Type": "",
			} {
				if got := r.header.Get(name); got != want {
					t.Errorf("header %s: got %q, want %q", name, got, want)
				}
			}
			if got := r.header.Get("X-Client-Request-Id"); !uuidV4.MatchString(got) {
				t.Errorf("X-Client-Request-ID: got %q, want a UUID", got)
			}
		})
	}
}

func TestListRefusesArguments(t *testing.T) {
	for _, c := range []struct {
		name   string
		opts   refreshtoken.ListOptions
		field  string
		reason string
	}{
		{"subject", refreshtoken.ListOptions{SubjectID: strings.Repeat("я", 51)}, "ListOptions.SubjectID", "51 characters, but the API takes 50"},
		{"subject not UTF-8", refreshtoken.ListOptions{SubjectID: "\xff"}, "ListOptions.SubjectID", "UTF-8"},
		{"page size", refreshtoken.ListOptions{PageSize: 1001}, "ListOptions.PageSize", "is 1001, but the API takes 0 to 1000"},
		{"negative page size", refreshtoken.ListOptions{PageSize: -1}, "ListOptions.PageSize", "by itself"},
		{"page token", refreshtoken.ListOptions{PageToken: strings.Repeat("a", 2001)}, "ListOptions.PageToken", "2000"},
		{"filter", refreshtoken.ListOptions{Filter: refreshtoken.Filter{ClientID: `a"b"c`}}, "Filter.ClientID", "double quote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, `{}`))
			tokens, err := list(s.client(), c.opts)
			e := as[*refreshtoken.ArgumentError](t, err)
			if e.Field != c.field || len(tokens) != 0 {
				t.Errorf("got field %q, %d tokens", e.Field, len(tokens))
			}
			wantText(t, e.Error(), "refreshtoken: ", c.field, c.reason)
			if n := len(s.seen()); n != 0 {
				t.Errorf("%d requests were sent", n)
			}
		})
	}
}

func TestPagesAreFetchedOnDemand(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, fmt.Sprintf(`{"refreshTokens":[{"id":"a%d"},{"id":"b%d"}],"nextPageToken":"p%d"}`, n, n, n))
	})
	seq := s.client().List(t.Context(), refreshtoken.ListOptions{NoLookahead: true})
	if n := len(s.seen()); n != 0 {
		t.Fatalf("%d requests before the loop", n)
	}
	i := 0
	for _, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		if got, want := len(s.seen()), i/2+1; got != want {
			t.Errorf("token %d: %d requests, want %d", i, got, want)
		}
		if i++; i == 5 {
			break
		}
	}
	if n := len(s.seen()); n != 3 {
		t.Errorf("%d requests after breaking off in page 3", n)
	}
	if n := s.open.Load(); n != 0 {
		t.Errorf("%d bodies were not closed", n)
	}
}

func TestListEndsWhereThePageTokenRepeats(t *testing.T) {
	page := func(id, next string) string {
		return fmt.Sprintf(`{"refreshTokens":[{"id":%q}],"nextPageToken":%q}`, id, next)
	}
	for _, c := range []struct {
		name  string
		start string
		pages map[string]string
		want  string
	}{
		{"to itself", "", map[string]string{"": page("1", "A"), "A": page("2", "A")}, "1 2"},
		{"A, B, A", "", map[string]string{"": page("1", "A"), "A": page("2", "B"), "B": page("3", "A")}, "1 2 3"},
		{"back to where the caller started", "S", map[string]string{"S": page("1", "A"), "A": page("2", "S")}, "1 2"},
		{"with empty pages", "", map[string]string{"": page("1", "A"), "A": `{"nextPageToken":"B"}`, "B": `{"nextPageToken":"A"}`}, "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := pages(t, c.pages)
			tokens, err := list(s.client(), refreshtoken.ListOptions{PageToken: c.start})
			if !errors.Is(err, refreshtoken.ErrPageTokenRepeated) {
				t.Fatalf("got error %v", err)
			}
			e := as[*refreshtoken.ResponseError](t, err)
			wantText(t, e.Error(), "refreshtoken: List: the server repeats a page token")
			if got := ids(tokens); got != c.want {
				t.Errorf("got the tokens %q before the error, want %q", got, c.want)
			}
			if got := len(s.seen()); got != len(c.pages) {
				t.Errorf("%d requests for %d pages", got, len(c.pages))
			}
		})
	}
}

// TestLongPageToken: one that the API would reject is not sent.
func TestLongPageToken(t *testing.T) {
	for n, ok := range map[int]bool{2000: true, 2001: false, 1 << 20: false} {
		s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("pageToken") != "" {
				answerJSON(w, http.StatusOK, `{}`)
				return
			}
			answerJSON(w, http.StatusOK, `{"refreshTokens":[{"id":"aje1"}],"nextPageToken":"`+strings.Repeat("a", n)+`"}`)
		})
		tokens, err := list(s.client(), refreshtoken.ListOptions{})
		if len(tokens) != 1 || (err == nil) != ok {
			t.Fatalf("%d characters: got %d tokens and %v", n, len(tokens), err)
		}
		if err != nil {
			wantText(t, as[*refreshtoken.ResponseError](t, err).Reason, "more than the 2000 characters")
			if len(s.seen()) != 1 {
				t.Errorf("%d characters: the page token was sent", n)
			}
		}
	}
}

// TestEmptyPages: a listing ends after 100 of them in a row, however many it has
// altogether.
func TestEmptyPages(t *testing.T) {
	for _, c := range []struct {
		name     string
		total    int            // of the pages of the server; 0: there is no end
		tokens   map[int]string // by the number of the page
		requests int
		want     string
		fails    bool
	}{
		{"no end", 0, nil, 100, "", true},
		{"no end after a token", 0, map[int]string{1: "a"}, 101, "a", true},
		{"the last one is the 100th", 100, nil, 100, "", false},
		{"the 101st has a token", 102, map[int]string{101: "a"}, 100, "", true},
		{"the 100th has a token", 180, map[int]string{100: "a"}, 180, "a", false},
	} {
		for _, noLookahead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", c.name, noLookahead), func(t *testing.T) {
				n := 0
				client := refreshtoken.New(&fakeTransport{list: func(_ context.Context, _ tokenapi.Call, req tokenapi.ListRequest) (*refreshtoken.Page, error) {
					if n++; n > 200 {
						return nil, errors.New("there is no end")
					}
					page := &refreshtoken.Page{Trace: refreshtoken.Trace{RequestID: fmt.Sprintf("r%d", n)}}
					if id := c.tokens[n]; id != "" {
						page.RefreshTokens = []*refreshtoken.RefreshToken{{ID: id}}
					}
					if n != c.total {
						page.NextPageToken = fmt.Sprintf("p%d", n)
					}
					return page, nil
				}})
				pages := 0
				var tokens []*refreshtoken.RefreshToken
				var err error
				for page, e := range client.Pages(t.Context(), refreshtoken.ListOptions{NoLookahead: noLookahead}) {
					if e != nil {
						err = e
						break
					}
					pages++
					tokens = append(tokens, page.RefreshTokens...)
				}
				if got := ids(tokens); got != c.want || n != c.requests || pages != c.requests || (err != nil) != c.fails {
					t.Errorf("got %q and %v after %d requests for %d pages, want %q after %d", ids(tokens), err, n, pages, c.want, c.requests)
				}
				if err != nil {
					e := as[*refreshtoken.ResponseError](t, err)
					wantText(t, e.Error(), "refreshtoken: List: ", "100 empty pages in a row", fmt.Sprintf("request id r%d", n))
				}
			})
		}
	}
}

func TestPages(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", fmt.Sprintf("r%d", n))
		w.Header().Set("X-Server-Trace-Id", "t")
		if r.URL.Query().Get("pageToken") == "" {
			answerJSON(w, http.StatusOK, `{"refreshTokens":[{"id":"1"}],"nextPageToken":"A"}`)
			return
		}
		answerJSON(w, http.StatusOK, `{"refreshTokens":null,"nextPageToken":null}`)
	})
	var got []string
	for page, err := range s.client().Pages(t.Context(), refreshtoken.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s|%s|%s|%s", ids(page.RefreshTokens), page.NextPageToken, page.RequestID, page.ServerTraceID))
		page.NextPageToken = "changed by the caller"
	}
	if want := []string{"1|A|r1|t", "||r2|t"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestListErrorEndsTheIteration(t *testing.T) {
	s := pages(t, map[string]string{"": `{"refreshTokens":[{"id":"1"}],"nextPageToken":"gone"}`})
	var events []string
	for token, err := range s.client().List(t.Context(), refreshtoken.ListOptions{}) {
		switch {
		case err != nil && token != nil:
			t.Error("a token came with an error")
		case err != nil:
			events = append(events, as[*refreshtoken.APIError](t, err).Code.String())
		default:
			events = append(events, token.ID)
		}
	}
	if want := []string{"1", "INVALID_ARGUMENT"}; !reflect.DeepEqual(events, want) {
		t.Errorf("got %q, want %q", events, want)
	}
}

func TestListOptionsAreTheCallers(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, `{"nextPageToken":"`+[]string{"", "A", "", "B", ""}[n]+`"}`)
	})
	levels := []refreshtoken.ProtectionLevel{refreshtoken.NoProtection}
	opts := refreshtoken.ListOptions{PageToken: "S", Filter: refreshtoken.Filter{ProtectionLevels: levels}}
	seq := s.client().List(t.Context(), opts)
	levels[0] = "CHANGED"
	for range 2 {
		for _, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if opts.PageToken != "S" {
		t.Errorf("PageToken became %q", opts.PageToken)
	}
	var got []string
	for _, r := range s.seen() {
		got = append(got, url.Values(r.query).Get("pageToken")+" "+url.Values(r.query).Get("filter"))
	}
	want := []string{`S protection_level="NO_PROTECTION"`, `A protection_level="NO_PROTECTION"`}
	if want = append(want, want[0], strings.Replace(want[1], "A", "B", 1)); !reflect.DeepEqual(got, want) {
		t.Errorf("got the requests %q, want %q", got, want)
	}
}

// TestListHoldsNoCredential: a server can send the IAM token back in any text.
func TestListHoldsNoCredential(t *testing.T) {
	const iam = "t1.9euelZqOnJWKkZ2ZlJeKlJiTle3rnpWaj5aNmJaY.abcdefghij"
	long := strings.Repeat("й", 900) + "\t\u202e " // as it came: a filter compares the whole of it
	for name, c := range map[string]struct {
		text, want, id string
	}{
		"nothing":  {long, long, long},
		"a token":  {iam, "REDACTED", ""},
		"a header": {"Bearer " + iam, "REDACTED", ""},
		"far back": {long + iam, long + "REDACTED", ""},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(c.text)
			if err != nil {
				t.Fatal(err)
			}
			s := serve(t, answer(http.StatusOK, strings.ReplaceAll(`{"refreshTokens":[{"id":TEXT,"clientInstanceInfo":TEXT,"clientId":TEXT,"subjectId":TEXT,"protectionLevel":TEXT}]}`, "TEXT", string(text))))
			tokens, err := list(s.client(), refreshtoken.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := refreshtoken.RefreshToken{ID: c.id, ClientInstanceInfo: c.want, ClientID: c.want, SubjectID: c.want, ProtectionLevel: refreshtoken.ProtectionLevel(c.want)}
			if got := *tokens[0]; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestListTolerates(t *testing.T) {
	for _, c := range []struct {
		name, token string
		want        refreshtoken.RefreshToken
	}{
		{"unknown member", `{"id":"1","color":{"deep":[1,2]},"ID":"other"}`, refreshtoken.RefreshToken{ID: "1"}},
		{"unknown level", `{"id":"1","protectionLevel":"QUANTUM_DPOP"}`, refreshtoken.RefreshToken{ID: "1", ProtectionLevel: "QUANTUM_DPOP"}},
		{"level as a number", `{"id":"1","protectionLevel":2}`, refreshtoken.RefreshToken{ID: "1", ProtectionLevel: refreshtoken.InsecureKeyDPoP}},
		{"level as a number with a fraction", `{"id":"1","protectionLevel":2.0}`, refreshtoken.RefreshToken{ID: "1", ProtectionLevel: refreshtoken.InsecureKeyDPoP}},
		{"level as a number with an exponent", `{"id":"1","protectionLevel":30E-1}`, refreshtoken.RefreshToken{ID: "1", ProtectionLevel: refreshtoken.SecureKeyDPoP}},
		{"unknown level with a fraction", `{"id":"1","protectionLevel":7.0}`, refreshtoken.RefreshToken{ID: "1", ProtectionLevel: "7"}},
		{"no integer for a level", `{"id":"1","protectionLevel":2.5}`, refreshtoken.RefreshToken{ID: "1", ProtectionLevel: "2.5"}},
		{"time with an offset", `{"id":"1","createdAt":"2024-11-26T15:30:15.123456789+03:00"}`, refreshtoken.RefreshToken{ID: "1", CreatedAt: time.Date(2024, 11, 26, 12, 30, 15, 123456789, time.UTC)}},
		{"unknown level as a number", `{"id":"1","protectionLevel":7}`, refreshtoken.RefreshToken{ID: "1", ProtectionLevel: "7"}},
		{"negative level", `{"id":"1","protectionLevel":-1}`, refreshtoken.RefreshToken{ID: "1", ProtectionLevel: "-1"}},
		{"null members", `{"id":"1","clientId":null,"createdAt":null,"protectionLevel":null}`, refreshtoken.RefreshToken{ID: "1"}},
		{"empty time", `{"id":"1","lastUsedAt":""}`, refreshtoken.RefreshToken{ID: "1"}},
		{"no member", `{}`, refreshtoken.RefreshToken{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, `{"refreshTokens":[`+c.token+`],"page":1}`))
			tokens, err := list(s.client(), refreshtoken.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if c.want.ProtectionLevel == "" {
				c.want.ProtectionLevel = refreshtoken.ProtectionLevelUnspecified
			}
			if len(tokens) != 1 || *tokens[0] != c.want {
				t.Errorf("got %+v, want %+v", tokens[0], c.want)
			}
		})
	}
}

func TestListTimes(t *testing.T) {
	base := time.Date(2024, 11, 26, 12, 30, 15, 0, time.UTC)
	for digits := range 10 {
		fraction, nanos := "", 123456789
		if digits > 0 {
			fraction = "." + "123456789"[:digits]
		}
		for range 9 - digits {
			nanos /= 10
		}
		for range 9 - digits {
			nanos *= 10
		}
		in := "2024-11-26T12:30:15" + fraction + "Z"
		t.Run(in, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, `{"refreshTokens":[{"createdAt":"`+in+`"}]}`))
			tokens, err := list(s.client(), refreshtoken.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if want := base.Add(time.Duration(nanos)); !tokens[0].CreatedAt.Equal(want) {
				t.Errorf("got %v, want %v", tokens[0].CreatedAt, want)
			}
		})
	}
}

func TestListMalformed(t *testing.T) {
	for _, c := range []struct{ name, body, reason string }{
		{"not an object", `[]`, "not an object"},
		{"null", `null`, "not an object"},
		{"list is an object", `{"refreshTokens":{}}`, "refreshTokens is not an array"},
		{"token is a string", `{"refreshTokens":[{"id":"1"},"secret-value"]}`, "refreshTokens[1]: it is not an object"},
		{"token is null", `{"refreshTokens":[null]}`, "refreshTokens[0]"},
		{"id is a number", `{"refreshTokens":[{"id":5}]}`, "refreshTokens[0]: id is not a string"},
		{"level is an object", `{"refreshTokens":[{"protectionLevel":{}}]}`, "protectionLevel is not a string"},
		{"page token is a number", `{"nextPageToken":5}`, "nextPageToken is not a string"},
		{"time", `{"refreshTokens":[{"createdAt":"secret-value"}]}`, "createdAt is not an RFC 3339 time"},
		{"time is a number", `{"refreshTokens":[{"createdAt":1732624215}]}`, "createdAt is not a string"},
		{"time without a zone", `{"refreshTokens":[{"createdAt":"2024-11-26T12:30:15"}]}`, "RFC 3339"},
		{"time after the last year", `{"refreshTokens":[{"createdAt":"9999-12-31T23:59:59-01:00"}]}`, "years 1 to 9999"},
		{"duplicate name", `{"nextPageToken":"a","nextPageToken":"b"}`, "the same name twice"},
		{"duplicate name in a token", `{"refreshTokens":[{"id":"a","id":"b"}]}`, "the same name twice"},
		{"second value", `{}{}`, "text after the value"},
		{"deep", `{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested deeper"},
		{"not UTF-8", "{\"nextPageToken\":\"\xff\"}", "UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, c.body))
			_, err := list(s.client(), refreshtoken.ListOptions{})
			e := as[*refreshtoken.ResponseError](t, err)
			wantText(t, e.Error(), "refreshtoken: List: ", c.reason, "HTTP 200")
			if strings.Contains(e.Error(), "secret-value") {
				t.Errorf("%q holds a value of the body", e)
			}
			if n := len(s.seen()); n != 1 {
				t.Errorf("%d requests: another attempt cannot help", n)
			}
		})
	}
}

func TestRefreshTokenJSON(t *testing.T) {
	token := refreshtoken.RefreshToken{ID: "1", CreatedAt: time.Date(2025, 1, 2, 3, 4, 5, 600, time.UTC), ProtectionLevel: refreshtoken.NoProtection}
	got, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":"1","createdAt":"2025-01-02T03:04:05.0000006Z","protectionLevel":"NO_PROTECTION"}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNotUsedSince(t *testing.T) {
	type token = refreshtoken.RefreshToken
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		token token
		want  bool
	}{
		{"used before", token{LastUsedAt: march.Add(-1)}, true},
		{"used since", token{CreatedAt: march.AddDate(-1, 0, 0), LastUsedAt: march}, false},
		{"never used", token{CreatedAt: march.AddDate(0, -1, 0)}, true},
		{"new", token{CreatedAt: march}, false},
		{"no times", token{}, false},
		{"new, and used in 1970", token{CreatedAt: march, LastUsedAt: time.Unix(0, 0)}, false},
		{"old, and used in 1970", token{CreatedAt: march.Add(-1), LastUsedAt: time.Unix(0, 0)}, true},
		{"used before, and no creation", token{LastUsedAt: march.Add(-1)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.token.NotUsedSince(march); got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestListContext(t *testing.T) {
	t.Run("ended before the loop", func(t *testing.T) {
		n := 0 // a token source would be asked for a token each time
		hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { n++; return nil, errors.New("asked") })}
		cause := errors.New("the user left")
		ctx, cancel := context.WithCancelCause(t.Context())
		seq := refreshtoken.NewClient(hc).List(ctx, refreshtoken.ListOptions{})
		cancel(cause)
		for _, err := range seq {
			if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
				t.Errorf("got error %v", err)
			}
			wantText(t, as[*refreshtoken.TransportError](t, err).Error(), "refreshtoken: List: ", "context canceled", "the user left")
		}
		if n != 0 {
			t.Errorf("%d requests were begun", n)
		}
	})
	for _, sendHeader := range []bool{false, true} {
		t.Run(fmt.Sprintf("ends while the server is slow, after the header: %t", sendHeader), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
				if sendHeader {
					answerJSON(w, http.StatusOK, `{"refreshTokens":[`)
					w.(http.Flusher).Flush()
				}
				cancel()
				<-r.Context().Done()
			})
			for _, err := range s.client().List(ctx, refreshtoken.ListOptions{}) {
				if !errors.Is(err, context.Canceled) || errors.Is(err, refreshtoken.ErrUnavailable) {
					t.Errorf("got error %v", err)
				}
				as[*refreshtoken.TransportError](t, err)
			}
			if n := len(s.seen()); n != 1 {
				t.Errorf("%d requests", n)
			}
			if n := s.open.Load(); n != 0 {
				t.Errorf("%d bodies were not closed", n)
			}
		})
	}
}

// TestLargestPage that the API allows: a thousand tokens, with a thousand characters
// in each.
func TestLargestPage(t *testing.T) {
	token := `{"id":"` + strings.Repeat("\U0001F511", 50) + `","clientInstanceInfo":"` + strings.Repeat("\U0001F511", 1000) + `"}`
	s := serve(t, answer(http.StatusOK, `{"refreshTokens":[`+strings.Repeat(token+",", 999)+token+`]}`))
	tokens, err := list(s.client(), refreshtoken.ListOptions{PageSize: 1000})
	if err != nil || len(tokens) != 1000 || utf8.RuneCountInString(tokens[999].ClientInstanceInfo) != 1000 {
		t.Errorf("got %d tokens and %v", len(tokens), err)
	}
}

func TestLimitOfABody(t *testing.T) {
	body := `{"refreshTokens":[{"id":"aje1"}]}`
	body += strings.Repeat(" ", 16<<20-len(body))
	for _, c := range []struct {
		name, body string
		want       int
	}{{"at the limit", body, 1}, {"above it", body + " ", 0}} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, c.body))
			tokens, err := list(s.client(), refreshtoken.ListOptions{})
			if len(tokens) != c.want || (err == nil) != (c.want > 0) {
				t.Fatalf("got %d tokens and %v", len(tokens), err)
			}
			if err != nil {
				wantText(t, as[*refreshtoken.ResponseError](t, err).Reason, "larger than 16 MiB: a smaller PageSize")
			}
			if n := len(s.seen()); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}
