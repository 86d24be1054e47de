//go:build windows || (cgo && (linux || darwin || freebsd || openbsd))

package piv

import (
	"crypto/rand"
	"io"
	"reflect"
	"unsafe"

	gopiv "github.com/go-piv/piv-go/v2/piv"
)

// adopt makes go-piv send its commands over a connection that it did not open.
//
// go-piv has no way to be given one, because its Open always connects
// exclusively (see [link]). Its commands use three unexported fields of a YubiKey:
// tx, a pointer to a struct whose only field is the PC/SC handle, version, a
// pointer to a struct of three bytes, and rand. They are set here, each after a
// check that it is what it was in v2.5.0 and v2.6.0. ok is false where one is not.
// The fields ctx and h stay nil. Only go-piv's Close uses them, which must not be
// called.
func adopt(h scardHandle, v Version) (yk *gopiv.YubiKey, ok bool) {
	yk = new(gopiv.YubiKey)
	fields := reflect.ValueOf(yk).Elem()
	tx, okTx := newStruct(fields.FieldByName("tx"))
	version, okVersion := newStruct(fields.FieldByName("version"))
	if !okTx || !okVersion || tx.NumField() != 1 {
		return nil, false
	}
	ok = setField(tx.Field(0), h) &&
		setField(version.FieldByName("major"), byte(v.Major)) &&
		setField(version.FieldByName("minor"), byte(v.Minor)) &&
		setField(version.FieldByName("patch"), byte(v.Patch)) &&
		setField(fields.FieldByName("rand"), struct{ io.Reader }{rand.Reader})
	return yk, ok
}

// newStruct lets a pointer field point to a new struct, and returns that.
func newStruct(field reflect.Value) (reflect.Value, bool) {
	if !field.IsValid() || field.Kind() != reflect.Pointer || field.Type().Elem().Kind() != reflect.Struct {
		return reflect.Value{}, false
	}
	s := reflect.New(field.Type().Elem())
	writable(field).Set(s)
	return s.Elem(), true
}

// setField sets a field to a value of the same kind, or of a type that implements
// the field's.
func setField(field reflect.Value, value any) bool {
	v := reflect.ValueOf(value)
	switch {
	case !field.IsValid():
		return false
	case field.Kind() == reflect.Interface && v.Type().Implements(field.Type()), field.Kind() == v.Kind():
		writable(field).Set(v.Convert(field.Type()))
		return true
	}
	return false
}

// writable returns an unexported field as one that can be set.
func writable(field reflect.Value) reflect.Value {
	return reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
}
