package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// reference reads by way of Check and encoding/json.
func reference(data []byte) (any, error) {
	if err := Check(data); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	return v, err
}

// read reads a whole text with a Reader, in pieces of a size.
func read(data []byte, size int) (any, error) {
	r := NewReader(bytes.NewReader(data), size)
	v := anyValue(r)
	r.End()
	return v, r.Err()
}

func anyValue(r *Reader) any {
	switch kind := r.Kind(); kind {
	case '{':
		o := map[string]any{}
		for r.Begin(kind); r.More(); {
			name := string(r.Name())
			o[name] = anyValue(r)
		}
		return o
	case '[':
		a := []any{}
		for r.Begin(kind); r.More(); {
			a = append(a, anyValue(r))
		}
		return a
	case '"':
		return string(r.Text())
	case '0':
		return json.Number(r.Number())
	case 'n':
		r.Skip()
		return nil
	default:
		r.Skip()
		return kind == 't'
	}
}

// agree holds a Reader against the reference: the same values, and the same texts
// rejected, whatever the size of the pieces and whether the values are wanted.
func agree(t *testing.T, data []byte) {
	t.Helper()
	want, wantErr := reference(data)
	for _, size := range []int{1, 3, len(data) + 1} {
		got, err := read(data, size)
		if (err == nil) != (wantErr == nil) || !reflect.DeepEqual(got, want) && err == nil {
			t.Errorf("%q in pieces of %d: got %v and %v, want %v and %v", data, size, got, err, want, wantErr)
		}
		var syntax *SyntaxError
		if err != nil && !errors.As(err, &syntax) {
			t.Errorf("%q: got a %T", data, err)
		}
		r := NewReader(bytes.NewReader(data), size)
		r.Skip()
		r.End()
		if (r.Err() == nil) != (wantErr == nil) {
			t.Errorf("%q in pieces of %d, skipped: got %v, want %v", data, size, r.Err(), wantErr)
		}
	}
}

func TestReader(t *testing.T) {
	for _, text := range []string{
		`null`, `true`, `false`, `"x"`, `{}`, `[]`, ` { } `, "\t[\n]\r", `[[],{}]`, `{"a":{"b":[1,"2",null,true,false]}}`,
		`0`, `-0`, `1`, `-12.5`, `1e9`, `1E+9`, `1.5e-09`, `12345678901234567890`,
		`01`, `-`, `+1`, `.5`, `1.`, `1e`, `1e+`, `0x1`, `1 2`, `NaN`, `--1`,
		`"\u0041\n\"\\\/"`, `"\ud83d\udd11"`, `"\ud83d"`, `"\q"`, `"\u12"`, `"\u12g4"`, "\"\x01\"", "\"\x7f\"", `"я🔑"`, "\"\u2028\"",
		`"`, `"abc`, `"abc\`, `"abc\"`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `[`, `[1`, `[1,`, `tru`, `nul`, `-`, ``, ` `,
		`{"a":1,}`, `[1,]`, `{,}`, `[,]`, `{"a" 1}`, `{"a":1 "b":2}`, `[1 2]`, `{1:2}`, `{"a":1}}`, `[]]`, `[}`, `{]`, `truex`, `nulL`, `'a'`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1},"c":{"b":1}}`, `[{"a":1},{"a":2}]`, `{"":1,"":2}`, `{"a\n":1,"a\n":2}`,
		manyNames(16), manyNames(17), manyNames(40), strings.Replace(manyNames(40), `"n30"`, `"n2"`, 1), strings.Replace(manyNames(17), `"n16"`, `"n0"`, 1),
		`[` + manyNames(20) + `,` + manyNames(3) + `,{"n1":` + manyNames(20) + `,"n2":2}]`,
		`"\/\b\f\n\r\t\\"`, `"\v"`, `"\'"`, `"\u"`, `"\u123"`, `"\uABcd"`, `"\u+123"`, "\"\\\x00\"", "\"\\я\"", "\"a\x00\"",
		"\"\xd0\"", "\"\xd0", "\"\xf0\x9f\x94\"", "\"\xf0\x9f\x94\x91\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xd0\x00\"", "\"\xd0\xd0\"", "\"\x80\"",
		"\xff", "\"\xff\"", "{\"\xff\":1}", "\ufeff{}", "{}\x00", "\x00",
		strings.Repeat("[", 65) + strings.Repeat("]", 65), strings.Repeat("[", 66) + strings.Repeat("]", 66),
		strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64), strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65),
	} {
		agree(t, []byte(text))
	}
}

// manyNames is an object with n members.
func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"n%d":%d`, i, i)
	}
	return "{" + b.String()[1:] + "}"
}

func TestReaderTellsWhatIsCutOff(t *testing.T) {
	const whole = `{"a":[1,"x\n",{"b":true}],"c":null}`
	for n := range len(whole) {
		if _, err := read([]byte(whole[:n]), 4); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: got %v", whole[:n], err)
		}
	}
	for _, text := range []string{`{"a":x`, `{"a":1}x`, `{"a":1,"a"`} {
		if _, err := read([]byte(text), 4); errors.Is(err, io.ErrUnexpectedEOF) && text != `{"a":1,"a"` {
			t.Errorf("%q: got %v", text, err)
		}
	}
	if _, err := read([]byte(`{"secret":hush}`), 4); err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "byte 11") {
		t.Errorf("got %v", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) { agree(t, data) })
}

// TestReaderKeepsTheErrorOfTheStream: it is not one of the text.
func TestReaderKeepsTheErrorOfTheStream(t *testing.T) {
	broken := errors.New("connection reset")
	const whole = `{"a":[1,"x\n",{"b":true}],"c":null} `
	for n := range len(whole) + 1 {
		r := NewReader(io.MultiReader(strings.NewReader(whole[:n]), iotest.ErrReader(broken)), 4)
		r.Skip()
		r.End()
		if !errors.Is(r.Err(), broken) {
			t.Errorf("after %q: got %v", whole[:n], r.Err())
		}
	}
	r := NewReader(iotest.TimeoutReader(strings.NewReader(whole)), 4)
	if r.Skip(); !errors.Is(r.Err(), iotest.ErrTimeout) {
		t.Errorf("got %v", r.Err())
	}
	if r = NewReader(stuck{}, 4); r.Kind() != ' ' || !errors.Is(r.Err(), io.ErrNoProgress) {
		t.Errorf("got %v", r.Err())
	}
}

// stuck is a stream that neither goes on nor ends.
type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// TestReaderAllocatesLittle: nothing for what is skipped or compared.
func TestReaderAllocatesLittle(t *testing.T) {
	text := `[` + strings.Repeat(`{"id":"aje1","other":[1,{"x":null}],"name":"value"},`, 1000) + `null]`
	buf := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(10, func() {
		r := NewReader(strings.NewReader(text), 512)
		r.buf = buf
		if r.Skip(); r.Err() != nil {
			t.Fatal(r.Err())
		}
	}); n > 20 {
		t.Errorf("%v allocations for 1000 objects", n)
	}
}

func TestReaderFail(t *testing.T) {
	wrong := errors.New("wrong")
	r := NewReader(strings.NewReader(`{"a":[1,2],"b":`), 4)
	for r.Begin('{'); r.More(); {
		r.Fail(wrong)
		r.Fail(io.EOF)
		if got := string(r.Name()) + string(r.Text()) + string(r.Number()); got != "" || r.Kind() != ' ' {
			t.Errorf("goes on after an error: %q", got)
		}
		r.Begin('[')
		r.Skip()
	}
	r.End()
	if r.Err() != wrong { //nolint:errorlint // itself
		t.Errorf("got %v", r.Err())
	}
}

// TestReaderBoundsNames: an object with many members is not worth their memory, also where
// it is skipped.
func TestReaderBoundsNames(t *testing.T) {
	for n, ok := range map[int]bool{10_000: true, 10_001: false} {
		r := NewReader(strings.NewReader(manyNames(n)), 512)
		r.Skip()
		r.End()
		if err := r.Err(); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "more than 10000 members") {
			t.Errorf("%d members: got %v", n, err)
		}
	}
}

// endless is a text that begins and goes on as told, in all of so many bytes.
func endless(begin, again string, size int) io.Reader {
	return io.LimitReader(io.MultiReader(strings.NewReader(begin), &repeating{text: again}), int64(size))
}

type repeating struct {
	text string
	at   int
}

func (r *repeating) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.text[r.at%len(r.text)]
		r.at++
	}
	return len(p), nil
}

// TestReaderKeepsNothingOfWhatIsSkipped: the memory does not grow with the text.
func TestReaderKeepsNothingOfWhatIsSkipped(t *testing.T) {
	for _, c := range []struct{ name, begin, again, reason string }{
		{"a string", `"`, "a", tooEarly},
		{"a string with escapes", `"`, `\u0041\n`, tooEarly},
		{"a string that is not ASCII", `"`, "я", tooEarly},
		{"a number", `1`, "0", ""},
		{"a fraction", `0.`, "1", ""},
		{"a string in an object", `{"a":{"b":["`, `a\"`, tooEarly},
		{"a name", `{"`, "a", "the names in open objects"},
		{"a name with escapes", `{"`, `\n`, "the names in open objects"},
		{"names within names", ``, `{"` + strings.Repeat("a", 32<<10) + `":`, "the names in open objects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := NewReader(endless(c.begin, c.again, 4<<20+1), 16<<10)
			r.Skip()
			r.End()
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 6<<20 {
				t.Errorf("%d KiB were allocated", n>>10)
			}
			if err := r.Err(); (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
				t.Errorf("got %v, want %s", err, c.reason)
			}
		})
	}
}
