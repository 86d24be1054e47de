//go:build linux && !race

package storehistory

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	child()
	flag.Parse()
	if _, many := os.LookupEnv("YCAUTH_HISTORIES"); !many {
		_ = flag.Set("test.parallel", "16") // they wait most of the time
	}
	status := m.Run()
	if postgres.server != nil {
		if err := postgres.server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	if etcd.cluster != nil {
		if err := etcd.cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// number is that of a variable of the environment.
func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text, ok := os.LookupEnv(variable)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		t.Fatalf("%s=%s is no positive number", variable, text)
	}
	return n
}

// atOnce is how many histories run at a time: more would take the processors from each other.
const atOnce = 200

// TestHistories runs YCAUTH_HISTORIES of every store. YCAUTH_SEED repeats the disturbances of
// a run.
func TestHistories(t *testing.T) {
	t.Parallel()
	histories, disturbed := number(t, "YCAUTH_HISTORIES", 20), 22*time.Second
	if histories > 100 {
		disturbed = time.Minute // a pause can last for longer than the wait of a successor
	}
	seed := uint64(number(t, "YCAUTH_SEED", int(time.Now().UnixMilli())))
	for _, s := range append(slices.Clone(subjects), correct) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			seed := seed
			start := time.Now()
			var total result
			for left := histories; left > 0; left -= atOnce {
				r := begin(t, options{
					subject: s, seed: seed, histories: min(left, atOnce), processes: 4, logins: 15, disturbed: disturbed,
				})
				r.settle()
				res := r.judge()
				t.Log(res)
				r.report(res)
				total.add(res)
				seed++
				if t.Failed() {
					return
				}
			}
			t.Logf("%s in %v: %v", s.name, time.Since(start).Round(time.Second), total)
			if total.kills+total.pauses == 0 || total.renewals < histories {
				t.Error("hardly anything happened")
			}
		})
	}
}

// patience is how long a mistake may stay unnoticed. On an idle machine it takes less than half a minute.
const patience = 3 * time.Minute

// TestControls shows that histories of stores with mistakes are wrong.
func TestControls(t *testing.T) {
	t.Parallel()
	for _, s := range controls {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			r := begin(t, options{subject: s, seed: 7, histories: 30, processes: 4, logins: s.logins, delay: s.delay, disturbed: patience})
			for time.Since(start) < patience {
				time.Sleep(2 * time.Second)
				res := r.judge()
				if len(res.wrong) > 0 {
					t.Logf("%q: found after %v: %v", s.name, time.Since(start).Round(time.Second), res.wrong[0].wrong())
					return
				}
			}
			t.Errorf("not found within %v: %v", patience, r.judge())
		})
	}
}
