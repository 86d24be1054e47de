package oauth

import (
	"bytes"
	"html/template"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"
)

// page is what the browser shows at the end.
type page struct{ title, text string }

// pages in the languages offered, English first.
type pages [2]page

var (
	pageDone = pages{
		{"You are logged in", "You can close this window and go back to the program."},
		{"Вы вошли", "Можно закрыть это окно и вернуться в программу."},
	}
	pageFailed = pages{
		{"The login failed", "The program says why. You can close this window."},
		{"Войти не удалось", "Причину сообщает программа. Это окно можно закрыть."},
	}
	pageRepeated = pages{
		{"Already answered", "This login has its answer. You can close this window."},
		{"Ответ уже получен", "Этот вход уже завершён. Это окно можно закрыть."},
	}
	pageForeign = pages{
		{"Not this login", "The address does not belong to the login that the program waits for. Start again from the program."},
		{"Другой вход", "Этот адрес не относится к входу, которого ждёт программа. Начните снова из программы."},
	}
)

var pageTemplate = template.Must(template.New("").Parse(`<!doctype html>
<html lang="{{.Lang}}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
:root { color-scheme: light dark }
body { font: 1.1rem/1.5 system-ui, sans-serif; display: grid; place-content: center; min-height: 90vh; margin: 0 1.5rem }
main { max-width: 32rem }
h1 { font-size: 1.6rem; margin: 0 0 .5rem }
p { margin: 0 }
</style></head>
<body><main id="ycauth" data-status="{{.Status}}"><h1>{{.Title}}</h1><p>{{.Text}}</p></main></body></html>
`))

// writePage shows nothing of the request: the address holds the code.
func writePage(w http.ResponseWriter, r *http.Request, status int, p pages) {
	lang, i := "en", 0
	if prefersRussian(r.Header.Get("Accept-Language")) {
		lang, i = "ru", 1
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the code must not travel on in a Referer
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Connection", "close")
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, struct {
		Lang, Title, Text string
		Status            int
	}{lang, p[i].title, p[i].text, status})
	if err != nil {
		http.Error(w, p[i].title, status)
		return
	}
	// The whole page is out before the login returns and the port is closed.
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	_ = http.NewResponseController(w).Flush()
}

// prefersRussian looks which of the two languages comes first. Browsers list
// languages in the order of preference, and the weights follow it (RFC 9110
// §12.5.4).
func prefersRussian(acceptLanguage string) bool {
	for part := range strings.SplitSeq(acceptLanguage, ",") {
		tag, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(part)), ";")
		primary, _, _ := strings.Cut(tag, "-")
		switch primary {
		case "ru":
			return true
		case "en":
			return false
		}
	}
	return false
}

// discardLog silences net/http's own log, which would quote requests.
func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
