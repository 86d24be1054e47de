package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// reference is Decode by way of Check and encoding/json.
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

// agree holds Decode against the reference: the same values, and the same texts
// refused, with the same answer to whether more of the text could have helped.
func agree(t *testing.T, data []byte) {
	t.Helper()
	want, wantErr := reference(data)
	got, err := Decode(data)
	if (err == nil) != (wantErr == nil) || !reflect.DeepEqual(got, want) && err == nil {
		t.Errorf("%q: got %v and %v, want %v and %v", data, got, err, want, wantErr)
	}
	var syntax *SyntaxError
	if err != nil && !errors.As(err, &syntax) {
		t.Errorf("%q: got a %T", data, err)
	}
}

func TestDecode(t *testing.T) {
	for _, text := range []string{
		`null`, `true`, `false`, `"x"`, `{}`, `[]`, ` { } `, "\t[\n]\r", `[[],{}]`, `{"a":{"b":[1,"2",null,true,false]}}`,
		`0`, `-0`, `1`, `-12.5`, `1e9`, `1E+9`, `1.5e-09`, `12345678901234567890`,
		`01`, `-`, `+1`, `.5`, `1.`, `1e`, `1e+`, `0x1`, `1 2`, `NaN`, `--1`,
		`"\u0041\n\"\\\/"`, `"\ud83d\udd11"`, `"\ud83d"`, `"\q"`, `"\u12"`, `"\u12g4"`, "\"\x01\"", "\"\x7f\"", `"я🔑"`, "\"\u2028\"",
		`"`, `"abc`, `"abc\`, `"abc\"`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `[`, `[1`, `[1,`, `tru`, `nul`, `-`, ``, ` `,
		`{"a":1,}`, `[1,]`, `{,}`, `[,]`, `{"a" 1}`, `{"a":1 "b":2}`, `[1 2]`, `{1:2}`, `{"a":1}}`, `[]]`, `[}`, `{]`, `truex`, `nulL`, `'a'`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1},"c":{"b":1}}`, `[{"a":1},{"a":2}]`, `{"":1,"":2}`, `{"a\n":1,"a\n":2}`,
		"\xff", "\"\xff\"", "{\"\xff\":1}", "\ufeff{}", "{}\x00", "\x00",
		strings.Repeat("[", 65) + strings.Repeat("]", 65), strings.Repeat("[", 66) + strings.Repeat("]", 66),
		strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64), strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65),
	} {
		agree(t, []byte(text))
	}
}

func TestDecodeTellsWhatIsCutOff(t *testing.T) {
	const whole = `{"a":[1,"x\n",{"b":true}],"c":null}`
	for n := range len(whole) {
		if _, err := Decode([]byte(whole[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: got %v", whole[:n], err)
		}
	}
	for _, text := range []string{`{"a":x`, `{"a":1}x`, `{"a":1,"a"`} {
		if _, err := Decode([]byte(text)); errors.Is(err, io.ErrUnexpectedEOF) && text != `{"a":1,"a"` {
			t.Errorf("%q: got %v", text, err)
		}
	}
	if _, err := Decode([]byte(`{"secret":hush}`)); err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "byte 11") {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) { agree(t, data) })
}
