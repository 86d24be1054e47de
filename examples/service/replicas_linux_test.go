package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// password is one that the program must not print.
const password = "pass+WORD 1"

// newReplica is a service of iam's with its session in a database.
func newReplica(t *testing.T, iam *iamtest.Server, dir, store string) (config, *record) {
	t.Helper()
	environment := map[string]string{"SERVICE_STORE": store}
	cfg, err := parseConfig([]string{
		"-iam", iam.URL, "-api", iam.URL + "/api/whoami", "-client-id", iam.ClientID,
		"-key", filepath.Join(dir, "dpop.pem"), "-drain", patience.String(), "-announce", "0s",
	}, func(name string) string { return environment[name] }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	log := new(record)
	cfg.clock, cfg.log = iam.Now, slog.New(slog.NewTextHandler(log, nil))
	return cfg, log
}

// A record is a log that several goroutines write.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// Two replicas share the session in the database: one renews, the other one adopts its
// token, and the session is sealed.
func TestReplicasShareADatabase(t *testing.T) {
	iam, db, dir := newIAM(t), newDatabase(t), t.TempDir()
	cfg, log := newReplica(t, iam, dir, db.url(password))
	if err := loginEmbedded(bounded(t), cfg, iam); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("there is %v, %v; want the DPoP key and the key that seals", files, err)
	}
	if info, err := os.Stat(cfg.sealKey); err != nil || info.Mode() != 0o600 {
		t.Errorf("%s: %v, %v", cfg.sealKey, info, err)
	}

	before := inDatabase(t, cfg)
	one, two := start(t, cfg), start(t, cfg)
	one.want(t, "/", 200, `"subject":"ajeiamtestuser000001"`)
	two.want(t, "/", 200, `"subject":"ajeiamtestuser000001"`)
	iam.Advance(13 * time.Hour) // expired
	var requests sync.WaitGroup
	for _, r := range []*running{one, two} {
		requests.Go(func() {
			if code, body, err := get(bounded(t), r.url+"/"); err != nil || code != 200 {
				t.Errorf("%d %s, %v", code, body, err)
			}
		})
	}
	requests.Wait()
	one.end(t)
	two.end(t)
	if after := inDatabase(t, cfg); after.Generation != before.Generation+1 {
		t.Errorf("generation %d after %d, want one renewal for both", after.Generation, before.Generation)
	}
	if live := iam.LiveGrants(); live != 1 {
		t.Errorf("%d grants are alive", live)
	}
	rows := db.text(t, "SELECT string_agg(s::text, ' ') FROM public.oauth_sessions s")
	for _, secret := range iam.Secrets() {
		if strings.Contains(rows, secret) {
			t.Error("a token is in the table in the clear")
		}
	}
	if strings.Contains(log.String(), "WORD") {
		t.Errorf("the log has the password:\n%s", log)
	}
}

// A service starts without its database, says at /readyz what is missing, and is ready
// when the database is there.
func TestServiceStartsBeforeItsDatabase(t *testing.T) {
	iam, db, dir := newIAM(t), newDatabase(t), t.TempDir()
	cfg, log := newReplica(t, iam, dir, db.url(password))
	if err := loginEmbedded(bounded(t), cfg, iam); err != nil {
		t.Fatal(err)
	}
	db.stop()
	r := start(t, cfg)
	r.want(t, "/healthz", 200)
	code, body, err := get(bounded(t), r.url+"/readyz")
	if err != nil || code != 503 || !strings.Contains(body, "session store") {
		t.Errorf("%d %q, %v", code, body, err)
	}
	r.want(t, "/", 502)
	db.start(t)
	for ctx := bounded(t); ; {
		if code, _, err := get(ctx, r.url+"/readyz"); err != nil || code == 200 {
			break
		}
	}
	r.want(t, "/", 200)
	r.end(t)
	if said := body + log.String(); strings.Contains(said, "WORD") {
		t.Errorf("the password is in\n%s", said)
	}
}

// SIGTERM during a renewal: the new refresh token is in the database.
func TestTerminatedProcessSavesToTheDatabase(t *testing.T) {
	iam, db, dir := newIAM(t, time.Now), newDatabase(t), t.TempDir()
	cfg, _ := newReplica(t, iam, dir, db.url(password))
	if err := loginEmbedded(bounded(t), cfg, iam); err != nil {
		t.Fatal(err)
	}
	before := inDatabase(t, cfg)
	iam.RevokeAccessToken(before.AccessToken.Reveal())
	t.Setenv("SERVICE_STORE", cfg.store)
	p := startProcess(t, "-iam", iam.URL, "-api", cfg.api, "-key", cfg.keyFile, "-drain", "30s")
	if status, body, err := get(bounded(t), p.url+"/readyz"); err != nil || status != 200 {
		t.Fatalf("%d %s, %v", status, body, err)
	}
	iam.Inject(iamtest.EndpointToken, iamtest.Slow(slow), 1)
	replied := make(chan int, 1)
	go func() {
		status, _, _ := get(bounded(t), p.url+"/")
		replied <- status
	}()
	awaitFault(t, iam)
	p.terminate(t)
	if status := <-replied; status != 200 {
		t.Errorf("the request in progress got %d", status)
	}
	after := inDatabase(t, cfg)
	if after.Generation != before.Generation+1 || after.RefreshToken == before.RefreshToken {
		t.Errorf("generation %d after %d", after.Generation, before.Generation)
	}
	if info := iam.Introspect(after.RefreshToken.Reveal()); info.GrantEnded != "" || info.State != iamtest.TokenCurrent {
		t.Errorf("the stored refresh token: %+v", info)
	}
	if strings.Contains(p.log.String(), "WORD") {
		t.Errorf("the log has the password:\n%s", p.log)
	}
}

// inDatabase is the session as another process would find it.
func inDatabase(t *testing.T, cfg config) oauth.Session {
	t.Helper()
	store, err := cfg.openStore()
	if err != nil {
		t.Fatal(err)
	}
	defer store.close()
	s, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
