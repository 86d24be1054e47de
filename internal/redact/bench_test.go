package redact

import (
	"strings"
	"testing"
)

func BenchmarkText(b *testing.B) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/"
	var token strings.Builder
	for i := range 486 {
		token.WriteByte(alphabet[i*i*7%len(alphabet)])
	}
	secret := "rt1." + token.String() + "=="
	for name, text := range map[string]string{
		"empty":   "",
		"message": "the refresh token was not found",
		"echo":    `bad request: {"refreshToken":"` + secret + `"}`,
		"540 KiB": strings.Repeat(`{"field":"some text of the server\/with %20 escapes"},`, 10<<10),
	} {
		run := func(how string, clean func() string) {
			b.Run(name+"/"+how, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					clean()
				}
			})
		}
		c := New(secret)
		run("once", func() string { return Text(text, secret) })
		run("again", func() string { return c.Text(text) })
	}
}
