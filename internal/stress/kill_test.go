//go:build !race

package stress

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/internal/killtest"
)

// The kills come without the race detector, which would only make the processes
// slow to start: they have nothing to race with.

// slowSync makes an fsync slow enough to be told from the noise of a busy machine,
// and a save that waits for one obvious.
const slowSync = 10 * time.Millisecond

// judge says whether a store saves as fast as the disk allows, and loses no more
// sessions than that explains. It compares with what the same process took, in
// the same run, for the usual way to write a file, which has two fsyncs.
func judge(r killtest.Result) error {
	if r.Survives.Median > r.Usual.Median/4 {
		return fmt.Errorf("a new session survives the process after %v, and the disk takes %v for a whole save", r.Survives.Median, r.Usual.Median)
	}
	if r.Durable.Median > r.Usual.Median+slowSync {
		return fmt.Errorf("a new session is durable after %v, and the disk takes %v for a whole save", r.Durable.Median, r.Usual.Median)
	}
	// A kill loses the session if it falls between the response and the write.
	// Four standard deviations above the mean of so many kills are a chance of
	// one in thirty thousand.
	share := min(float64(r.Survives.Mean)/float64(r.Cycle.Mean), 1)
	mean := share * float64(r.Kills)
	if most := mean + 4*math.Sqrt(mean*(1-share)) + 2; float64(r.Unsaved) > most {
		return fmt.Errorf("%d of %d kills lost the session, and the %v of %v in which it is in the process alone explain %.1f",
			r.Unsaved, r.Kills, r.Survives.Mean, r.Cycle.Mean, most)
	}
	return nil
}

func kill(t *testing.T, opts killtest.Options) killtest.Result {
	t.Helper()
	opts.Dir, opts.Sync, opts.Compare = t.TempDir(), slowSync, true
	r, err := killtest.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if r.Renewed == 0 || r.Kills != opts.Kill || r.Renewed+r.Unsaved+r.Unheard != r.Kills || r.Cycle.Median == 0 || r.Usual.Median < 2*slowSync {
		t.Fatalf("the kills do not fall where they should: %+v", r)
	}
	return r
}

// TestKilledAtAnyMoment kills a process in a loop of renewals, each time at
// another moment. internal/bench/kill does it a thousand times.
func TestKilledAtAnyMoment(t *testing.T) {
	r := kill(t, killtest.Options{Way: killtest.Store, Kill: 150})
	t.Logf("%d kills: %d sessions renewed, %d responses had not arrived, %d sessions were lost; survives after %v, durable after %v, a save takes %v",
		r.Kills, r.Renewed, r.Unheard, r.Unsaved, r.Survives.Median, r.Durable.Median, r.Usual.Median)
	if err := judge(r); err != nil {
		t.Error(err)
	}
}

// TestLateSaveIsNoticed shows that TestKilledAtAnyMoment fails for the sake of a
// store that saves late, or does not recover what was saved.
func TestLateSaveIsNoticed(t *testing.T) {
	for name, opts := range map[string]killtest.Options{
		"after the response, with an fsync": {Way: killtest.Afterwards, Kill: 25},
		"20 ms late":                        {Way: killtest.Store, Kill: 25, BeforeWrite: 20 * time.Millisecond},
		"20 ms late in the rename":          {Way: killtest.Store, Kill: 25, BeforeRename: 20 * time.Millisecond},
		"no recovery":                       {Way: killtest.NoRecovery, Kill: 80},
	} {
		t.Run(name, func(t *testing.T) {
			r := kill(t, opts)
			err := judge(r)
			if err == nil {
				t.Fatalf("nobody notices: %+v", r)
			}
			t.Log(err)
		})
	}
}
