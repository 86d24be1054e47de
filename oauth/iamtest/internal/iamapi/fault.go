package iamapi

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A FaultKind is what goes wrong.
type FaultKind string

// The kinds of faults. The constructor of iamtest with the same name describes each.
const (
	FaultLostRequest      FaultKind = "request lost"
	FaultLostAnswer       FaultKind = "answer lost"
	FaultHTTPStatus       FaultKind = "status"
	FaultSlow             FaultKind = "slow"
	FaultTruncated        FaultKind = "truncated body"
	FaultOversized        FaultKind = "oversized body"
	FaultHTML             FaultKind = "HTML"
	FaultRedirect         FaultKind = "redirect"
	FaultWrongContentType FaultKind = "wrong content type"
	FaultDuplicateMember  FaultKind = "duplicate member"
	FaultUnknownMembers   FaultKind = "unknown members"
	FaultEmptyBody        FaultKind = "empty body"
	FaultNonceChallenge   FaultKind = "nonce challenge"
	FaultRepeatedPage     FaultKind = "repeated page token"
	FaultClockSkew        FaultKind = "clock skew"

	FaultOperationNotFound FaultKind = "operation not found"
	FaultForeignOperation  FaultKind = "foreign operation"
	FaultEcho              FaultKind = "echo"
)

// A Fault is what an iamtest.Fault is made of.
type Fault struct {
	Kind FaultKind

	// Status of the answer: FaultHTTPStatus, FaultHTML, FaultEcho.
	Status int

	// RetryAfter of the answer, in whole seconds: FaultHTTPStatus. 0: the header
	// is missing.
	RetryAfter time.Duration

	// Duration is the wait of FaultSlow, and how far the clock of FaultClockSkew
	// is ahead.
	Duration time.Duration

	// TakesEffect: what was asked for has happened by the time of the fault: the
	// code is spent, the refresh token replaced, the tokens revoked.
	TakesEffect bool

	// Times is how many requests in a row one occurrence hits. 0 is 1.
	Times int
}

// String names the fault, as in "status 503, Retry-After 1s".
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(string(f.Kind))
	if f.Status != 0 {
		fmt.Fprintf(&b, " %d", f.Status)
	}
	if f.Duration != 0 {
		fmt.Fprintf(&b, " %v", f.Duration)
	}
	if f.RetryAfter > 0 {
		fmt.Fprintf(&b, ", Retry-After %v", f.RetryAfter)
	}
	if f.Times > 1 {
		fmt.Fprintf(&b, ", %d in a row", f.Times)
	}
	if f.TakesEffect && !slices.Contains(effective, f.Kind) && (f.Kind != FaultEcho || f.Status != 0) {
		b.WriteString(", after the effect")
	}
	return b.String()
}

// effective are the kinds that have no other way.
var effective = []FaultKind{
	FaultLostAnswer, FaultTruncated, FaultOversized, FaultWrongContentType,
	FaultDuplicateMember, FaultUnknownMembers, FaultEmptyBody, FaultRepeatedPage, FaultClockSkew,
	FaultForeignOperation,
}
