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

// pages are one page in the languages offered, English first, under a mark that
// says how it went before anything is read.
type pages struct {
	mark mark
	in   [2]page
}

// mark is a drawing in a circle of 24 by 24: the class is its colour, the path
// its SVG path.
type mark struct{ Class, Path string }

var (
	markDone   = mark{"done", "M7 12.5l3.5 3.5L17 9"}
	markFailed = mark{"failed", "M8 8l8 8M16 8l-8 8"}
	markNote   = mark{"note", "M12 7v6M12 16.5v.5"}

	pageDone = pages{markDone, [2]page{
		{"You are logged in", "You can close this window and go back to the program."},
		{"Вы вошли", "Можно закрыть это окно и вернуться в программу."},
	}}
	pageFailed = pages{markFailed, [2]page{
		{"The login failed", "The program says why. You can close this window."},
		{"Войти не удалось", "Причину сообщает программа. Это окно можно закрыть."},
	}}
	pageRepeated = pages{markNote, [2]page{
		{"Already received", "This login is already complete. You can close this window."},
		{"Ответ уже получен", "Этот вход уже завершён. Это окно можно закрыть."},
	}}
	pageForeign = pages{markNote, [2]page{
		{"Not this login", "The address does not belong to the login that the program waits for. Start again from the program."},
		{"Другой вход", "Этот адрес не относится к входу, которого ждёт программа. Начните снова из программы."},
	}}
)

// pageTemplate draws everything itself: the page must not load anything, for the
// request would tell of its address. That the policy of writePage forbids images
// also keeps browsers from asking for an icon.
var pageTemplate = template.Must(template.New("").Parse(`<!doctype html>
<html lang="{{.Lang}}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
:root { color-scheme: light dark; --back: #f3f4f6; --card: #fff; --text: #1c2128; --soft: #59636e; --line: #d8dee4; --done: #1a7f37; --failed: #cf222e; --note: #0969da }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --card: #161b22; --text: #e6edf3; --soft: #9198a1; --line: #30363d; --done: #3fb950; --failed: #f85149; --note: #4493f8 } }
body { margin: 0; padding: 1.5rem; box-sizing: border-box; min-height: 100vh; display: grid; place-items: center; background: var(--back); color: var(--text); font: 1rem/1.5 system-ui, sans-serif }
main { box-sizing: border-box; width: 100%; max-width: 26rem; padding: 2.5rem 2rem; text-align: center; background: var(--card); border: 1px solid var(--line); border-radius: 1rem }
svg { width: 3.5rem; fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linecap: round; stroke-linejoin: round }
.done { color: var(--done) } .failed { color: var(--failed) } .note { color: var(--note) }
h1 { margin: 1rem 0 .5rem; font-size: 1.5rem; line-height: 1.25 }
p { margin: 0; color: var(--soft); text-wrap: balance }
</style></head>
<body><main id="ycauth" data-status="{{.Status}}">
<svg class="{{.Mark.Class}}" viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="10"/><path d="{{.Mark.Path}}"/></svg>
<h1>{{.Title}}</h1><p>{{.Text}}</p></main></body></html>
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
		Mark              mark
		Status            int
	}{lang, p.in[i].title, p.in[i].text, p.mark, status})
	if err != nil {
		http.Error(w, p.in[i].title, status)
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
