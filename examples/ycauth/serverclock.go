package main

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// maxClockDifference is how far the clocks of this computer and of the server may be
// apart where times decide what is revoked. If they differ by more, one of them is
// wrong, and it is not known which: a proxy may have written the Date header.
const maxClockDifference = 5 * time.Minute

// serverClock notes the Date headers of responses (RFC 9110 §6.6.1).
type serverClock struct {
	base http.RoundTripper
	now  func() time.Time

	mu          sync.Mutex
	first       time.Time // the earliest Date: with it every token is younger
	theirs, our time.Time // both clocks, where they differed most
	undated     bool      // a response had no Date, or one that a cache kept
}

func (c *serverClock) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.base.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	our := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	dates, age := resp.Header.Values("Date"), resp.Header.Get("Age")
	if len(dates) != 1 || (age != "" && age != "0") {
		c.undated = true
		return resp, nil
	}
	date, err := http.ParseTime(dates[0])
	if err != nil {
		c.undated = true
		return resp, nil // which is good for everything else
	}
	if c.first.IsZero() || date.Before(c.first) {
		c.first = date
	}
	if c.theirs.IsZero() || date.Sub(our).Abs() > c.theirs.Sub(c.our).Abs() {
		c.theirs, c.our = date, our
	}
	return resp, nil
}

// time is what the server's clock said, if the clock of this computer agrees.
func (c *serverClock) time() (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case c.undated || c.first.IsZero():
		return time.Time{}, codedError{exitFailure, fmt.Errorf("the age of tokens is not known: this computer's clock says %s, and the server does not say what its clock says (Date header). Nothing was revoked; give IDs instead of --older-than",
			stamp(c.now()))}
	case c.theirs.Sub(c.our).Abs() > maxClockDifference:
		return time.Time{}, codedError{exitFailure, fmt.Errorf("the age of tokens is not known: this computer's clock says %s, and the server's %s. Nothing was revoked; correct the clock that is wrong",
			stamp(c.our), stamp(c.theirs))}
	}
	return c.first, nil
}
