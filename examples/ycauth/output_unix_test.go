//go:build unix

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/creack/pty"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// hostile is what a terminal would obey: it clears the screen, changes the color by
// C0 and C1, deletes, and turns the direction of writing.
const hostile = "x\x1b[2J\u009b31m\x7f\u202e\u2066\u2028y"

// visible fails if a terminal would obey anything in the text.
func visible(t *testing.T, name, text string) {
	t.Helper()
	for _, r := range text {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			t.Errorf("%s has %U:\n%q", name, r, text)
			return
		}
	}
}

// TestTextsOfServersAreVisible: what a server says of tokens can be written by who
// made them, who may be somebody else.
func TestTextsOfServersAreVisible(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	h.srv.Seed(1, func(_ int, s *iamtest.Seed) { s.ClientInstanceInfo = hostile })
	table := h.must(0, "list")
	visible(t, "the table", table.stdout+table.stderr)
	out := h.must(0, "list", "-o", "json")
	visible(t, "JSON", out.stdout+out.stderr)
	var tokens []refreshtoken.RefreshToken
	if err := json.Unmarshal([]byte(out.stdout), &tokens); err != nil {
		t.Fatal(err)
	}
	whole := false
	for _, token := range tokens {
		whole = whole || token.ClientInstanceInfo == hostile
	}
	if !whole {
		t.Errorf("JSON has lost characters: %s", out.stdout)
	}
}

// TestWhatShowsNothing: an application cannot look like another one in a table, and
// JSON tells them apart.
func TestWhatShowsNothing(t *testing.T) {
	const disguised = "yc\u200b/\u200d1\u2060.0\ufeff\U000e0041\U000e007f\U000e0fff"
	h := newHome(t, nil)
	h.must(0, "login")
	h.srv.Seed(2, func(i int, s *iamtest.Seed) { s.ClientInstanceInfo = []string{disguised, "yc/1.0"}[i] })
	table := h.must(0, "list").stdout
	if n := len(regexp.MustCompile(` yc/1\.0 +[A-Z]`).FindAllString(table, -1)); n != 2 {
		t.Errorf("%d rows have the text without what shows nothing:\n%q", n, table)
	}
	out := h.must(0, "list", "-o", "json").stdout
	if !strings.Contains(out, `"yc\u200b/\u200d1\u2060.0\ufeff\udb40\udc41\udb40\udc7f\udb43\udfff"`) {
		t.Errorf("it is not escaped in JSON:\n%q", out)
	}
}

// TestCertificateCannotForgeLines: the names in a certificate are in the error that
// rejects it.
func TestCertificateCannotForgeLines(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"x\x1b[2J\nYou are logged in."},
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	defer srv.Close()
	address := strings.Replace(srv.URL, "127.0.0.1", "localhost", 1) // for which names count
	h := newHome(t, nil)
	r := h.run("login", "--token-url", address+"/oauth/token", "-v")
	if r.code != exitFailure || !strings.Contains(r.stderr, "certificate is valid for x [2J You are logged in., not localhost") {
		t.Error(r)
	}
	visible(t, "stderr", r.stderr)
	if strings.Contains(r.stderr, "\nYou are logged in.") {
		t.Errorf("a line is forged: %v", r)
	}
	h.must(0, "login")
	r = h.run("list", "--iam-endpoint", address, "-v")
	if r.code != exitFailure || !strings.Contains(r.stderr, "You are") {
		t.Error(r)
	}
	visible(t, "stderr", r.stderr)
}

// TestArgumentsAreVisible: so is what a script passes on from elsewhere.
func TestArgumentsAreVisible(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	for _, args := range [][]string{
		{"revoke", "--subject-id", hostile},
		{"list", "--protection-level", hostile},
		{"token", hostile},
		{hostile},
		{"exec", "--", hostile},
		{"status", "--profile", hostile},
		{"login", "--client-id", hostile, "--timeout", "1ms"},
		{"login", "--federation-id", hostile, "--timeout", "1ms"},
	} {
		r := h.run(args...)
		visible(t, strings.Join(args, " "), r.stdout+r.stderr)
	}
}

// TestCleaningKeepsWhatIsOurs: programs read some of the output.
func TestCleaningKeepsWhatIsOurs(t *testing.T) {
	var b bytes.Buffer
	s := &stream{w: &b}
	for _, text := range []string{"plain\n\tindented\n", "не ASCII, 日本, 👩‍👩‍👧", "t1.abc_DEF-123.x~+/="} {
		b.Reset()
		if n, err := s.Write([]byte(text)); n != len(text) || err != nil || b.String() != text {
			t.Errorf("%q became %q, %d, %v", text, b.String(), n, err)
		}
	}
	if got := linef("%s|%v|%d|%q", "a\nb", os.ErrNotExist, 3, "c\x1b"); got != `a b|file does not exist|3|"c "` {
		t.Errorf("%q", got)
	}
}

// TestTerminals: what fits, and what the terminal can do.
func TestTerminals(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	h.srv.Seed(3, func(_ int, s *iamtest.Seed) { s.ClientInstanceInfo = "yc/0.1" })
	list := func(width uint16, term string) string {
		t.Helper()
		cmd := h.command("ycauth", "list")
		cmd.Env = append(cmd.Env, "TERM="+term)
		tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: width})
		if err != nil {
			t.Fatal(err)
		}
		defer tty.Close()
		s := newScreen()
		var buf [4096]byte
		for {
			n, err := tty.Read(buf[:])
			_, _ = s.Write(buf[:n])
			if err != nil {
				break // EIO when the program has ended
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, s)
		}
		return strings.ReplaceAll(s.String(), "\r\n", "\n")
	}
	if wide := list(200, "xterm"); !strings.Contains(wide, "ID\x1b[0m ") || strings.Count(wide, "\n") != 5 {
		t.Errorf("wide:\n%s", wide)
	}
	narrow := list(60, "dumb")
	visible(t, "a dumb terminal", narrow)
	if strings.Count(narrow, "\nAPPLICATION ") != 4 {
		t.Errorf("narrow:\n%s", narrow)
	}
	for line := range strings.Lines(narrow) {
		if len(line) > 61 {
			t.Errorf("a line is too long: %s", line)
		}
	}
}

func TestDistance(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"in 0 s": 0, "in 45 s": 45 * time.Second, "in 119 s": 2*time.Minute - 1, "in 2 min": 2 * time.Minute,
		"in 11 h": 12*time.Hour - time.Second, "in 47 h": 48*time.Hour - 1, "in 30 d": 31*24*time.Hour - 1,
		"5 min ago": -5 * time.Minute, "3 d ago": -80 * time.Hour,
	} {
		if got := distance(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// TestTimesAreTheUsers: people read times in their zone, programs in UTC.
func TestTimesAreTheUsers(t *testing.T) {
	h := newHome(t, nil)
	h.env = append(h.env, "TZ=Asia/Tokyo")
	if r := h.must(0, "login"); !strings.Contains(r.stdout, " JST (in 11 h)") {
		t.Error(r)
	}
	if r := h.must(0, "status", "-o", "json"); strings.Contains(r.stdout, "+09:00") || !strings.Contains(r.stdout, "Z\"") {
		t.Error(r)
	}
	var st statusJSON
	if err := json.Unmarshal([]byte(h.must(0, "status", "-o", "json").stdout), &st); err != nil {
		t.Fatal(err)
	}
	if left := st.TokenExpires.Sub(h.srv.Now()); left < 11*time.Hour || left > 12*time.Hour {
		t.Errorf("the token expires in %v", left)
	}
	if left := st.RefreshExpires.Sub(h.srv.Now()); left < 30*24*time.Hour || left > 31*24*time.Hour {
		t.Errorf("the refresh token expires in %v", left)
	}
}
