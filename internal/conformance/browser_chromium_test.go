package conformance

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// The languages that a user's browser asks for.
const (
	english = "en-US,en"
	russian = "ru-RU,ru,en"
)

// A chromium is a real browser, started for one test. Whatever it asks of a
// network goes through wire.
type chromium struct {
	ctx  context.Context
	wire *wire
}

// startChromium runs a browser with an empty profile until t ends.
func startChromium(t *testing.T, languages string) *chromium {
	t.Helper()
	path := needChromium(t)
	w := newWire(t)
	home := t.TempDir()
	allocator, kill := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.UserDataDir(filepath.Join(home, "profile")),
		chromedp.Env("HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home),
		chromedp.Headless,
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("accept-lang", languages),
		chromedp.ProxyServer(w.URL),
		chromedp.Flag("proxy-bypass-list", "<-loopback>"), // requests to this machine go through the proxy too
	)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		defer kill() // by process id, and waits
		defer cancel()
		end, stop := context.WithTimeout(ctx, stopTime)
		defer stop()
		if err := chromedp.Cancel(end); err != nil && ctx.Err() == nil {
			t.Errorf("the browser did not end by itself: %v", err)
		}
	})
	timer := time.AfterFunc(startTime, cancel)
	defer timer.Stop()
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("no browser: %v", err)
	}
	return &chromium{ctx, w}
}

// needChromium returns where the browser is. Without one the test fails if
// CI=true, and is skipped elsewhere.
func needChromium(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%v: ./test.sh installs it", err)
	default:
		t.Skipf("%v: ./test.sh installs it, or says what to install", err)
	}
	return path
}

// A tab belongs to a window of its own without cookies, as if another user had
// opened it.
type tab struct{ ctx context.Context }

func (c *chromium) newTab(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	timer := time.AfterFunc(patience, cancel)
	t.Cleanup(func() { timer.Stop() })
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(800, 500)); err != nil {
		t.Fatal(err)
	}
	return &tab{ctx}
}

// A view is what the user sees, and what the document knows.
type view struct {
	Status  int64 `json:"-"` // of the answer that the document came with
	Address string
	Lang    string
	Title   string
	Heading string
	Text    string
	Loaded  []string // what the document has loaded besides itself
}

const look = `({
	Address: location.href,
	Lang: document.documentElement.lang,
	Title: document.title,
	Heading: document.querySelector("h1")?.innerText ?? "",
	Text: document.body.innerText,
	Loaded: performance.getEntriesByType("resource").map(e => e.name),
})`

// open goes to an address and returns what is there when it has loaded.
func (b *tab) open(address string) (view, error) {
	resp, err := chromedp.Run(b.ctx, chromedp.NavigateResponse(address))
	if err != nil {
		return view{}, err
	}
	if resp == nil {
		return view{}, errors.New("the browser got no answer")
	}
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[view](look))
	v.Status = resp.Status
	return v, err
}

// mustOpen is open for addresses that there is an answer from.
func (b *tab) mustOpen(t *testing.T, address string) view {
	t.Helper()
	v, err := b.open(address)
	if err != nil {
		t.Fatalf("opening a page: %v", err)
	}
	return v
}

// photograph keeps pictures of what the tab shows, for people to look at, in the
// folder that YCAUTH_ARTIFACTS names: by day and by night.
func (b *tab) photograph(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("YCAUTH_ARTIFACTS")
	if dir == "" {
		return
	}
	if !filepath.IsAbs(dir) {
		t.Fatalf("YCAUTH_ARTIFACTS=%s: tests run in folders of their own, so it has to be an absolute path", dir)
	}
	dir = filepath.Join(dir, "pages")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"light", "dark"} {
		media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
		if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, media); err != nil {
			t.Fatal(err)
		}
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+"-"+scheme+".png"), png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
