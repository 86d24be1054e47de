package oauth

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// Every page in every language: whole, small, and with nothing in it that a
// browser would fetch.
func TestPages(t *testing.T) {
	fetched := regexp.MustCompile(`(?i)\b(src|href|srcset|action|data)=|url\(|@import|<script|<link|<img|http-equiv`)
	for name, p := range map[string]pages{"done": pageDone, "failed": pageFailed, "repeated": pageRepeated, "foreign": pageForeign} {
		for i, lang := range []string{"en", "ru"} {
			t.Run(name+" "+lang, func(t *testing.T) {
				r := httptest.NewRequest(http.MethodGet, "/auth/callback?code=the-code&state=the-state", nil)
				r.Header.Set("Accept-Language", lang)
				w := httptest.NewRecorder()
				writePage(w, r, http.StatusTeapot, p)
				body := w.Body.String()
				for _, want := range []string{
					`<html lang="` + lang + `">`, "<title>" + p.in[i].title + "</title>", "<h1>" + p.in[i].title + "</h1>",
					"<p>" + p.in[i].text + "</p>", `data-status="418"`, `class="` + p.mark.Class + `"`, `d="` + p.mark.Path + `"`, "</html>",
				} {
					if !strings.Contains(body, want) {
						t.Errorf("no %s in %s", want, body)
					}
				}
				if at := fetched.FindString(body); at != "" {
					t.Errorf("the page would fetch something: %s", at)
				}
				if strings.Contains(body, "the-code") || strings.Contains(body, "the-state") || w.Body.Len() > 4<<10 {
					t.Errorf("%d bytes: %s", w.Body.Len(), body)
				}
				for header, want := range map[string]string{
					"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Connection": "close",
					"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
				} {
					if got := w.Header().Get(header); got != want {
						t.Errorf("%s: %q, want %q", header, got, want)
					}
				}
				if w.Code != http.StatusTeapot {
					t.Errorf("status %d", w.Code)
				}
			})
		}
	}
}
