package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// age is a flag: a duration that may be in days or weeks.
type age time.Duration

func (d *age) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (d *age) Type() string { return "age" }

// Set reads a positive duration: that of [time.ParseDuration], or a whole number
// of days (d) or weeks (w).
func (d *age) Set(s string) error {
	v, err := parseAge(s)
	if err != nil || v <= 0 {
		return fmt.Errorf("want a positive age such as 30d, 2w or 12h")
	}
	*d = age(v)
	return nil
}

// maxDays keeps ages within what a time.Duration holds, some 292 years.
const maxDays = 100_000

func parseAge(s string) (time.Duration, error) {
	for suffix, days := range map[string]int{"d": 1, "w": 7} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.Atoi(number)
			if err != nil || n > maxDays/days {
				return 0, fmt.Errorf("not a number of days")
			}
			return time.Duration(n*days) * 24 * time.Hour, nil
		}
	}
	return time.ParseDuration(s)
}

// stale lists the tokens that were not used in a time: not since before, nor
// made since. A zero before selects every token.
func stale(ctx context.Context, client *refreshtoken.Client, options refreshtoken.ListOptions, before time.Time) ([]*refreshtoken.RefreshToken, error) {
	tokens := []*refreshtoken.RefreshToken{}
	for t, err := range client.List(ctx, options) {
		if err != nil {
			return nil, err
		}
		if before.IsZero() || unusedSince(t, before) {
			tokens = append(tokens, t)
		}
	}
	return tokens, nil
}

// unusedSince is false where the server gives no time: then it is not known.
func unusedSince(t *refreshtoken.RefreshToken, before time.Time) bool {
	used := t.LastUsedAt
	if used.IsZero() {
		used = t.CreatedAt
	}
	return !used.IsZero() && !used.After(before)
}

func tokenIDs(tokens []*refreshtoken.RefreshToken) []string {
	ids := make([]string, len(tokens))
	for i, t := range tokens {
		ids[i] = t.ID
	}
	return ids
}

// revokersAtOnce bounds how many revocations are under way.
const revokersAtOnce = 4

// revokeIDs revokes tokens and waits until they are. The result has an error, or
// nil, for each. After ctx has ended no further revocation begins. progress is
// called with how many have ended, never twice at a time.
func revokeIDs(ctx context.Context, client *refreshtoken.Client, ids []string, progress func(done int)) []error {
	errs := make([]error, len(ids))
	next := make(chan int)
	var mu sync.Mutex
	done := 0
	var wg sync.WaitGroup
	for range min(revokersAtOnce, len(ids)) {
		wg.Go(func() {
			for i := range next {
				errs[i] = revokeID(ctx, client, ids[i])
				mu.Lock()
				done++
				progress(done)
				mu.Unlock()
			}
		})
	}
	for i := range ids {
		next <- i
	}
	close(next)
	wg.Wait()
	return errs
}

func revokeID(ctx context.Context, client *refreshtoken.Client, id string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	op, err := client.Revoke(ctx, refreshtoken.ByID(id))
	if err != nil {
		return err
	}
	_, err = op.Wait(ctx)
	return err
}
