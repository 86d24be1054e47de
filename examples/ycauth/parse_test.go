package main

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func TestAge(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "2w": 14 * day, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute,
		"": 0, "d": 0, "0d": 0, "-1d": 0, "-3h": 0, "1.5d": 0, "30": 0, "30 d": 0, "1mo": 0,
		"100000d": 100_000 * day, "100001d": 0, "14286w": 0, "99999999999999999999d": 0,
	} {
		var got age
		err := got.Set(text)
		if time.Duration(got) != want || (err == nil) != (want > 0) {
			t.Errorf("%q is %v, %v; want %v", text, time.Duration(got), err, want)
		}
	}
}

// FuzzAge: whatever is accepted is positive, and is the same age when it is
// written as the flag shows it.
func FuzzAge(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		var first, second age
		if err := first.Set(text); err != nil {
			return
		}
		if first <= 0 {
			t.Fatalf("%q is %v", text, time.Duration(first))
		}
		if err := second.Set(first.String()); err != nil || second != first {
			t.Fatalf("%q is %v, and that is %v, %v", text, first.String(), second.String(), err)
		}
	})
}

// FuzzProfile: a configuration that is accepted is the same after it was saved.
func FuzzProfile(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := decodeProfile(data)
		if err != nil {
			return
		}
		saved, err := json.Marshal(first)
		if err != nil {
			return // a reference to a card that names none
		}
		second, err := decodeProfile(saved)
		if err != nil || !sameProfile(first, second) {
			t.Fatalf("%+v became %+v, %v", first, second, err)
		}
	})
}

// sameProfile takes an empty list for none, as the file does.
func sameProfile(a, b profile) bool {
	for _, p := range []*profile{&a, &b} {
		if len(p.Key.Public) == 0 {
			p.Key.Public = nil
		}
		if len(p.Key.Chain) == 0 {
			p.Key.Chain = nil
		}
		for i, der := range p.Key.Chain {
			if len(der) == 0 {
				p.Key.Chain[i] = nil
			}
		}
	}
	return reflect.DeepEqual(a, b)
}
