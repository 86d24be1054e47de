package main

import (
	"fmt"
	"strconv"
	"strings"
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

func tokenIDs(tokens []*refreshtoken.RefreshToken) []string {
	ids := make([]string, len(tokens))
	for i, t := range tokens {
		ids[i] = t.ID
	}
	return ids
}
