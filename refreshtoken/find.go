package refreshtoken

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"
)

// A Rule judges a refresh token: it returns why the token should go, in a few
// words, or "" where it may stay. The Rules of this package ignore fields that the
// server did not set.
type Rule func(*RefreshToken) (reason string)

// Unprotected is a [Rule] that finds tokens with [NoProtection]: whoever copies one
// can use it. The level [ProtectionLevelUnspecified] says nothing, and is not found.
func Unprotected() Rule {
	return func(t *RefreshToken) string {
		if t.ProtectionLevel != NoProtection {
			return ""
		}
		return "not bound to a key"
	}
}

// NotUsedSince is a [Rule] that finds tokens whose last use, or where they were
// never used their creation, lies before t. For those that are stale for 30 days:
//
//	refreshtoken.NotUsedSince(time.Now().AddDate(0, 0, -30))
func NotUsedSince(t time.Time) Rule {
	return func(token *RefreshToken) string {
		switch {
		case !token.LastUsedAt.IsZero():
			if token.LastUsedAt.Before(t) {
				return "last used on " + day(token.LastUsedAt)
			}
		case !token.CreatedAt.IsZero() && token.CreatedAt.Before(t):
			return "not used since it was created on " + day(token.CreatedAt)
		}
		return ""
	}
}

// CreatedBefore is a [Rule] that finds tokens that were created before t.
func CreatedBefore(t time.Time) Rule {
	return func(token *RefreshToken) string {
		if token.CreatedAt.IsZero() || !token.CreatedAt.Before(t) {
			return ""
		}
		return "created on " + day(token.CreatedAt)
	}
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// ClientOlderThan is a [Rule] that finds tokens of older versions of a client than
// the one given, as [RefreshToken] ClientInstanceInfo names it: "yc/0.141.0" finds
// "yc/0.140.2" and "yc/0.141.0-beta1", but neither "yc/0.141.0" nor "mycli/0.1.0".
// A version is numbers with dots between; what cannot be read as one is not found.
//
// The error is an [*ArgumentError].
func ClientOlderThan(clientInstanceInfo string) (Rule, error) {
	product, least, ok := parseClient(clientInstanceInfo)
	if !ok {
		return nil, &ArgumentError{"ClientOlderThan", "is not a client and its version: want one such as yc/0.141.0"}
	}
	return func(t *RefreshToken) string {
		p, v, ok := parseClient(t.ClientInstanceInfo)
		if !ok || p != product || !v.less(least) {
			return ""
		}
		return fmt.Sprintf("from %s %s, older than %s", p, v, least)
	}, nil
}

// Any is a [Rule] that finds tokens that at least one of the rules finds, and gives
// the reasons of those. Any() finds none.
func Any(rules ...Rule) Rule {
	return func(t *RefreshToken) string { return strings.Join(judge(t, rules), " and ") }
}

// judge are the reasons of the rules that find t.
func judge(t *RefreshToken, rules []Rule) []string {
	var reasons []string
	for _, rule := range rules {
		if reason := rule(t); reason != "" {
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

// A Finding is a refresh token that every [Rule] found.
type Finding struct {
	*RefreshToken
	// Reasons are those of the rules, in their order.
	Reasons []string
}

// Find iterates over the refresh tokens that opts selects and every one of the rules
// finds. Each rule narrows the result, as each condition of a [Filter] does; [Any]
// widens it. Find lists, and changes nothing: [Client.RevokeEach] takes the IDs.
//
// Errors are those of [Client.List], and an [*ArgumentError] without rules.
func (c *Client) Find(ctx context.Context, opts ListOptions, rules ...Rule) iter.Seq2[Finding, error] {
	tokens := c.List(ctx, opts)
	return func(yield func(Finding, error) bool) {
		if err := checkRules(rules); err != nil {
			yield(Finding{}, err)
			return
		}
		for t, err := range tokens {
			if err != nil {
				yield(Finding{}, err)
				return
			}
			if reasons := judge(t, rules); len(reasons) == len(rules) && !yield(Finding{t, reasons}, nil) {
				return
			}
		}
	}
}

func checkRules(rules []Rule) error {
	for i, rule := range rules {
		if rule == nil {
			return &ArgumentError{fmt.Sprintf("Find, rule %d,", i+1), "is nil"}
		}
	}
	if len(rules) == 0 {
		return &ArgumentError{"Find", "takes at least one rule, such as Unprotected()"}
	}
	return nil
}
