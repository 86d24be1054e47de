// Package killtest kills processes that renew a session, at random instants, and
// counts the sessions that are lost.
//
// The server is the embedded IAM, with rotation at every renewal and reuse
// detection, so a session is lost if the new refresh token dies with the process.
// If the response had not reached the process, no client could have saved it.
// If it had, a store can, and the package measures how long that takes.
package killtest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// A Way is how a process saves what it renews.
type Way string

const (
	// Store is package filestore.
	Store Way = "store"

	// Afterwards is the way that most programs go: when the response is there,
	// a temporary file, fsync, rename.
	Afterwards Way = "afterwards"

	// NoRecovery is package filestore without the recovery of what a dead process
	// left: a control.
	NoRecovery Way = "no recovery"
)

// Options of a [Run].
type Options struct {
	Way  Way
	Dir  string // an empty one, for the session; on the disk in question
	Kill int    // how often

	// Sync is how long an fsync takes in addition to what it takes anyway: a
	// simulation of other disks. BeforeWrite and BeforeRename are delays of the
	// write that makes the new session survive the process, and of the rename
	// that makes it the stored one: controls. Optional.
	Sync, BeforeWrite, BeforeRename time.Duration

	// Compare has the processes write a file by the usual way after each
	// renewal, for Result.Usual. Optional.
	Compare bool
}

// A Result of a [Run]. Durations are of the renewals of all processes.
type Result struct {
	Kills   int
	Renewed int // the stored session renews
	Unsaved int // the new refresh token was in the process, and died with it
	Unheard int // the server had rotated, and the response had not reached the process

	// From the response's arrival: until the new session survives SIGKILL, and
	// until it survives a failure of the power.
	Survives, Durable Spread
	Cycle             Spread // from one response to the next

	// Usual is how long the disk takes, under the same conditions, for a
	// temporary file, fsync, rename, fsync of the directory.
	Usual Spread
}

// A Spread is of durations.
type Spread struct{ Median, Mean time.Duration }

func spread(d []time.Duration) Spread {
	if len(d) == 0 {
		return Spread{}
	}
	slices.Sort(d)
	var sum time.Duration
	for _, x := range d {
		sum += x
	}
	return Spread{d[len(d)/2], sum / time.Duration(len(d))}
}

// A part is that of a process.
type part struct {
	Server                          string
	Way                             Way
	Dir                             string
	Sync, BeforeWrite, BeforeRename time.Duration
	Compare                         bool
}

const partVariable = "YCAUTH_KILLTEST_PART"

// Run starts this program again for each kill. Its main function, or its
// TestMain, must call [Child] first.
func Run(ctx context.Context, opts Options) (Result, error) {
	iam, err := iamtest.New(iamtest.Options{Rotation: iamtest.RotateAlways})
	if err != nil {
		return Result{}, err
	}
	defer iam.Close()
	r := run{Options: opts, iam: iam}
	if err := r.login(ctx); err != nil {
		return Result{}, err
	}
	for i := range opts.Kill {
		if err := r.kill(ctx); err != nil {
			return Result{}, fmt.Errorf("kill %d: %w", i+1, err)
		}
	}
	r.result.Survives, r.result.Durable = spread(r.survives), spread(r.durable)
	r.result.Cycle, r.result.Usual = spread(r.cycle), spread(r.usual)
	return r.result, nil
}

type run struct {
	Options
	iam    *iamtest.Server
	result Result

	survives, durable, cycle, usual []time.Duration
}

func (r *run) part() part {
	return part{r.iam.URL, r.Way, r.Dir, r.Sync, r.BeforeWrite, r.BeforeRename, r.Compare}
}

func (r *run) login(ctx context.Context) error {
	c, _, err := r.part().client(http.DefaultTransport)
	if err != nil {
		return err
	}
	_, err = c.Login(ctx, oauth.LoginOptions{OpenURL: visit})
	return err
}

// visit is a browser whose user is logged in and consents to everything.
func visit(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// kill kills one process, and sees what is left.
func (r *run) kill(ctx context.Context) error {
	p, err := r.start(ctx)
	if err != nil {
		return err
	}
	// From the first renewal to some way into a later one: each has an fsync of a
	// file and one of a directory.
	time.Sleep(rand.N(12*time.Millisecond + 10*(r.Sync+r.BeforeWrite+r.BeforeRename)))
	heard, err := p.kill()
	if err != nil {
		return err
	}
	r.survives = append(r.survives, p.survives...)
	r.durable = append(r.durable, p.durable...)
	r.cycle = append(r.cycle, p.cycle...)
	r.usual = append(r.usual, p.usual...)

	// A request of the dead process can still be on its way: what the server
	// makes of it is part of what the kill led to.
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if err := r.iam.Quiet(ctx); err != nil {
		return err
	}
	return r.look(ctx, heard)
}

// look is a process that starts now. heard is the digest of the last refresh
// token that reached the dead one.
func (r *run) look(ctx context.Context, heard string) error {
	if r.Way == NoRecovery {
		if err := os.Remove(filepath.Join(r.Dir, "sessions", "default.next")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	sent := &wire{base: http.DefaultTransport}
	c, _, err := r.part().client(sent)
	if err != nil {
		return err
	}
	before, err := c.Session(ctx)
	if err != nil {
		return fmt.Errorf("the stored session: %w", err)
	}
	ts := c.TokenSource()
	_, err = ts.Renew(ctx)
	r.result.Kills++
	switch info := r.iam.Introspect(sent.sent); {
	case err == nil:
		r.result.Renewed++
	case errors.Is(err, oauth.ErrLoginRequired) && info.GrantEnded == "a replaced refresh token was used":
		if heard != "" && heard != digest(sent.sent) {
			r.result.Unsaved++
		} else {
			r.result.Unheard++
		}
		if after, err := c.Session(ctx); err != nil || after.RefreshToken.Reveal() != sent.sent {
			return fmt.Errorf("the response changed the store: generation %d, then %d, %w", before.Generation, after.Generation, err)
		}
		if err := r.login(ctx); err != nil {
			return fmt.Errorf("log in again: %w", err)
		}
	default:
		return fmt.Errorf("the renewal said %w; the server knows the stored token as %s (%s)", err, info.State, info.GrantEnded)
	}
	return ts.Close()
}

// A process renews until it is killed.
type process struct {
	cmd *exec.Cmd
	out *bufio.Scanner

	survives, durable, cycle, usual []time.Duration
}

func (r *run) start(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(r.part())
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), partVariable+"="+string(value))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, out: bufio.NewScanner(out)}
	if !p.out.Scan() || p.out.Text() != "ready" {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("the process said %q: %w", p.out.Text(), cmd.Wait())
	}
	return p, nil
}

// kill kills the process, and returns the digest of the last refresh token that
// it had heard of.
func (p *process) kill() (heard string, err error) {
	if err := p.cmd.Process.Kill(); err != nil {
		return "", err
	}
	for p.out.Scan() { // a pipe keeps what a dead process wrote
		var s, d, c time.Duration
		switch word, rest, _ := strings.Cut(p.out.Text(), " "); word {
		case "heard":
			heard = rest
		case "renewed":
			if _, err := fmt.Sscan(rest, &s, &d, &c); err != nil {
				return "", err
			}
			p.survives, p.durable = append(p.survives, s), append(p.durable, d)
			if c > 0 {
				p.cycle = append(p.cycle, c)
			}
		case "usual":
			if _, err := fmt.Sscan(rest, &s); err != nil {
				return "", err
			}
			p.usual = append(p.usual, s)
		default:
			return "", fmt.Errorf("the process said %q", p.out.Text())
		}
	}
	if err := p.cmd.Wait(); p.cmd.ProcessState.Exited() {
		return "", fmt.Errorf("the process had ended by itself: %w", err)
	}
	return heard, nil
}

// digest names a token without telling it.
func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:6])
}
