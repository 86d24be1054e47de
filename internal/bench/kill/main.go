// Kill prints how long a rotated refresh token is in one process alone, and how
// many sessions are lost for it when that process is killed at a random instant:
//
//	cd internal/bench && go run ./kill -kills 1000 -slow 600
//
// "go run . -kill" does so too, and puts the table into docs/BENCHMARKS.md.
//
// The way of package filestore stands beside the usual one, on the disk of the
// directory that is given and with an fsync that takes 4 ms longer.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/ycauth/ycauth-go/internal/killtest"
)

func main() {
	killtest.Child()
	kills := flag.Int("kills", 1000, "kills on this disk")
	slow := flag.Int("slow", 600, "kills with the slow fsync")
	extra := flag.Duration("fsync", 4*time.Millisecond, "how much longer the slow fsync takes")
	dir := flag.String("dir", ".", "a directory on the disk in question")
	flag.Parse()
	if err := table(*dir, *kills, *slow, *extra); err != nil {
		fmt.Fprintln(os.Stderr, "kill:", err)
		os.Exit(1)
	}
}

func table(dir string, kills, slow int, extra time.Duration) error {
	tmp, err := os.MkdirTemp(dir, "kill")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fmt.Printf("## A process is killed while it renews\n\nIn a loop that does nothing but renew, at a random instant; rotation at every renewal, reuse detection. "+
		"\"Lost\" are the sessions whose new refresh token had reached the process and died with it. \"Not heard of\" are those whose response was still on its way, "+
		"which no client can save. Times are medians, from the response's arrival. %s, %s/%s, %d cores.\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Print("| | survives SIGKILL | durable | renewal | kills | renewed | not heard of | lost |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for i, row := range []struct {
		name  string
		way   killtest.Way
		kills int
		sync  time.Duration
	}{
		{"temporary file, fsync, rename", killtest.Afterwards, kills, 0},
		{"**filestore**", killtest.Store, kills, 0},
		{fmt.Sprintf("temporary file, fsync, rename; fsync + %v", extra), killtest.Afterwards, slow, extra},
		{fmt.Sprintf("**filestore**; fsync + %v", extra), killtest.Store, slow, extra},
	} {
		place := filepath.Join(tmp, strconv.Itoa(i))
		if err := os.Mkdir(place, 0o700); err != nil {
			return err
		}
		r, err := killtest.Run(context.Background(), killtest.Options{Way: row.way, Dir: place, Kill: row.kills, Sync: row.sync})
		if err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		fmt.Printf("| %s | %v | %v | %v | %d | %d | %d | %d |\n", row.name, round(r.Survives.Median), round(r.Durable.Median), round(r.Cycle.Median),
			r.Kills, r.Renewed, r.Unheard, r.Unsaved)
	}
	return nil
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
