//go:build linux && !race

package storehistory

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// fence is how long a renewal waits after a mark: the life of a proof, and 15 seconds for
// clocks.
const fence = proofLife + 15*time.Second

// grace is how long it then waits for a former holder that is about to save.
const grace = 20 * time.Second

// forever is the end of an operation that has none.
const forever = math.MaxInt64

// An input is an operation of the model. Everything is known of it when the history is checked,
// so that the model needs no outputs.
type input struct {
	kind     kind
	update   int // number of the update
	tok      token
	next     token
	result   string
	call     int64
	ret      int64
	cause    string // of reused: why the response of the request before was never stored
	describe string
}

// A state of the authorization server and the store, for one session.
type state struct {
	stored  token
	owner   int   // the update that has the lock or lease; 0 for none
	from    int64 // the lease lasts at least from here
	current [families]int16
	ended   [families]bool
}

// An owner is what the model knows of an update.
type owner struct {
	died int64 // its process; forever if it did not
}

// model is that of one session over a store whose leases last for lease; 0 for a lock.
func model(lease time.Duration, owners []owner) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{stored: none} },
		Step: func(s, in, _ any) (bool, any) { return step(s.(state), in.(input), lease, owners) },
		DescribeOperation: func(in, _ any) string {
			return in.(input).describe
		},
		DescribeState: func(s any) string {
			x := s.(state)
			return fmt.Sprintf("stored %v, update %d has the lease, the server has %v", x.stored, x.owner, x.current[max(x.stored.Family, 0)])
		},
	}
}

// slack is for the clocks of stores, which can be set.
const slack = int64(100 * time.Millisecond)

// step says whether an operation could happen in a state, and what comes of it.
func step(s state, in input, lease time.Duration, owners []owner) (bool, state) {
	switch in.kind {
	case loads:
		return s.stored == in.tok, s

	case takes: // the lock or the lease, with the newest session
		held := s.owner != 0
		switch {
		case !held:
		case lease == 0:
			held = in.ret < owners[s.owner].died
		default:
			held = in.ret < s.from+int64(lease)-slack
		}
		if held || s.stored != in.tok {
			return false, s
		}
		s.owner, s.from = in.update, in.call
		return true, s

	case begins: // the mark: for the owner alone, on the session that it was given
		if s.owner != in.update || s.stored != in.tok {
			return false, s
		}
		s.from = in.call
		return true, s

	case saves:
		successor := in.next.Family == in.tok.Family && in.next.N > in.tok.N && in.next.N <= int(s.current[in.next.Family])
		login := in.next.Family != in.tok.Family && in.next.N == 0
		switch {
		case s.stored == in.tok && (successor || login):
			s.stored = in.next
		case in.result == "" || s.stored == in.tok:
			return false, s
		default: // not stored, or not known and now it can be no more
			return true, s
		}
		if s.owner == in.update {
			s.owner = 0
		}
		return true, s

	case leaves:
		if s.owner == in.update {
			s.owner = 0
		}
		return true, s

	case redeemed:
		if s.ended[in.tok.Family] || int(s.current[in.tok.Family]) != in.tok.N {
			return false, s
		}
		s.current[in.tok.Family] = int16(in.next.N)
		return true, s

	case reused:
		if s.ended[in.tok.Family] || int(s.current[in.tok.Family]) == in.tok.N || in.cause == "" {
			return false, s
		}
		s.ended[in.tok.Family] = true
		return true, s

	case refused:
		return s.ended[in.tok.Family], s
	}
	panic(in.kind)
}

// A history is one session.
type history struct {
	session int
	lease   time.Duration
	fenced  bool    // who finds a mark waits
	events  []event // in the order of time
	others  []event // of the processes, for those who read what happened
	until   int64
}

// A judgment is what a history shows.
type judgment struct {
	history
	operations []porcupine.Operation
	owners     []owner
	renewals   int
	reads      int
	losses     []string // why, one for each session that the server has ended; "avoidable: …" if there is no good cause
	stuck      string   // the history did not settle
	result     porcupine.CheckResult
	info       porcupine.LinearizationInfo
}

func (j *judgment) avoidable() []string {
	return slices.DeleteFunc(slices.Clone(j.losses), func(s string) bool { return !strings.HasPrefix(s, avoidable) })
}

const avoidable = "avoidable: "

// wrong says what is wrong with a history, if anything is.
func (j *judgment) wrong() []string {
	wrong := j.avoidable()
	if j.result == porcupine.Illegal && len(wrong) == 0 {
		wrong = append(wrong, "it is not linearizable: "+j.unexplained())
	}
	if j.result == porcupine.Unknown {
		wrong = append(wrong, "it could not be checked in time")
	}
	if j.stuck != "" {
		wrong = append(wrong, j.stuck)
	}
	return wrong
}

// unexplained is the first operation that no order of the others leads to.
func (j *judgment) unexplained() string {
	var longest []int
	for _, partition := range j.info.PartialLinearizations() {
		for _, order := range partition {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	first := -1
	for i, op := range j.operations {
		if !slices.Contains(longest, i) && (first < 0 || op.Return < j.operations[first].Return) {
			first = i
		}
	}
	if first < 0 {
		return "no order explains it"
	}
	op := j.operations[first]
	return fmt.Sprintf("nothing explains %q, %.3f s after the beginning", op.Input.(input).describe, float64(op.Return-j.operations[0].Call)/1e9)
}

// An update is what the events say of one Update or UpdateLease of a store.
type update struct {
	number  int
	process *process
	base    token
	takes   *event
	took    *event
	closes  *event // saves or leaves
	left    *event
}

// A request is what they say of a token request.
type request struct {
	update   *update
	begun    int64 // before its mark was set; under a lock, before it was sent
	sends    *event
	received *event
	redeemed *event
}

// judge checks a history.
func judge(h history) *judgment {
	j := &judgment{history: h, owners: []owner{{}}}
	updates := map[string]*update{}
	requests := map[string]*request{}
	begin := map[string]*event{}      // by operation
	lastBegin := map[*update]*event{} // before the next request
	load := map[string]*event{}       // by operation
	commits := map[token]*request{}   // by the token that was replaced
	storedAt := map[token]int64{}     // when a token was known to be stored
	known := func(t token, at int64) {
		if _, ok := storedAt[t]; !ok {
			storedAt[t] = at
		}
	}
	updateOf := func(e *event) *update {
		u := updates[e.Update]
		if u == nil {
			u = &update{number: len(j.owners), process: e.process}
			updates[e.Update] = u
			o := owner{died: forever}
			if e.process != nil && max(e.process.died, e.process.gone) != 0 { // its lock ends with it
				o.died = max(e.process.died, e.process.gone)
			}
			j.owners = append(j.owners, o)
		}
		return u
	}
	add := func(p *process, in input) {
		client := 0
		if p != nil {
			client = p.client
		}
		ret := in.ret
		if ret == forever {
			ret = h.until + 1
		}
		in.describe = in.text()
		j.operations = append(j.operations, porcupine.Operation{ClientId: client, Input: in, Call: in.call, Return: ret})
	}

	for i := range h.events {
		e := &h.events[i]
		switch e.Kind {
		case loads:
			load[e.Op] = e
		case loaded:
			if call := load[e.Op]; call != nil && e.Result == "" {
				j.reads++
				known(e.Token, e.At)
				add(e.process, input{kind: loads, tok: e.Token, call: call.At, ret: e.At})
			}
		case takes:
			updateOf(e).takes = e
		case took:
			u := updateOf(e)
			u.took, u.base = e, e.Token
			known(e.Token, e.At)
			add(e.process, input{kind: takes, update: u.number, tok: e.Token, call: u.takes.At, ret: e.At})
		case begins:
			begin[e.Op] = e
			lastBegin[updateOf(e)] = e
		case begun:
			if call := begin[e.Op]; e.Result == "" {
				add(e.process, input{kind: begins, update: updateOf(e).number, tok: e.Token, call: call.At, ret: e.At})
			}
		case saves, leaves:
			updateOf(e).closes = e
		case left:
			u := updateOf(e)
			u.left = e
			if u.closes != nil && u.closes.Kind == saves && e.Result == "" {
				known(u.closes.Next, e.At)
			}
		case sends:
			r := &request{update: updateOf(e), sends: e}
			switch b := lastBegin[r.update]; {
			case b != nil:
				r.begun = b.At
			default:
				r.begun = e.At // under a lock
			}
			requests[e.Op] = r
		case received:
			requests[e.Op].received = e
		case redeemed:
			r := requests[e.Op]
			j.renewals++
			r.redeemed = e
			commits[e.Token] = r
			add(nil, input{kind: redeemed, tok: e.Token, next: e.Next, call: e.At, ret: e.At})
		case reused:
			cause, why := h.cause(requests[e.Op], commits[e.Token], storedAt)
			if cause == "" {
				j.losses = append(j.losses, avoidable+why)
			} else {
				j.losses = append(j.losses, cause)
			}
			add(nil, input{kind: reused, tok: e.Token, call: e.At, ret: e.At, cause: cause})
		case refused:
			add(nil, input{kind: refused, tok: e.Token, call: e.At, ret: e.At})
		case settled:
			if e.Result == failure {
				j.stuck = "at the end the session could not be renewed: " + e.Note
			}
		}
	}
	for _, u := range updates {
		if u.closes == nil {
			continue
		}
		in := input{kind: u.closes.Kind, update: u.number, tok: u.base, next: u.closes.Next, call: u.closes.At, ret: forever, result: failure}
		if u.left != nil && (u.left.Result != failure || in.kind == leaves) {
			in.ret, in.result = u.left.At, u.left.Result
		}
		add(u.process, in)
		if u.left != nil && u.left.Result != "" && in.kind == saves {
			// The lock or lease has been given back, or what is left of it hinders nobody.
			in.kind, in.ret, in.result = leaves, u.left.At, ""
			add(u.process, in)
		}
	}
	slices.SortStableFunc(j.operations, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	m := model(h.lease, j.owners)
	j.result, j.info = porcupine.CheckOperationsVerbose(m, j.operations, time.Minute)
	return j
}

func (in input) text() string {
	switch in.kind {
	case loads:
		return fmt.Sprintf("load: %v", in.tok)
	case takes:
		return fmt.Sprintf("#%d takes: %v", in.update, in.tok)
	case begins:
		return fmt.Sprintf("#%d begins with %v", in.update, in.tok)
	case saves:
		return fmt.Sprintf("#%d stores %v over %v: %s", in.update, in.next, in.tok, cmp.Or(in.result, "ok"))
	case leaves:
		return fmt.Sprintf("#%d leaves", in.update)
	case redeemed:
		return fmt.Sprintf("server: %v for %v", in.next, in.tok)
	case reused:
		return fmt.Sprintf("server: %v came again (%s)", in.tok, cmp.Or(in.cause, "no cause"))
	}
	return fmt.Sprintf("server: %v refused", in.tok)
}

// Causes of an unavoidable loss.
const (
	wasKilled    = "killed before it stored the response"
	wasPaused    = "paused before it stored the response"
	noResponse   = "the response was lost"
	noStore      = "the store could not be reached"
	wasOvertaken = "a request of a killed process was overtaken"
)

// cause says why the server received a refresh token a second time, in the request again: the
// response to the first request was not stored before again had begun. If there is no good
// cause, why says what happened.
func (h history) cause(again, first *request, storedAt map[token]int64) (cause, why string) {
	if first == nil {
		return "", "the server has never replaced the token"
	}
	next := first.redeemed.Next
	p, at := first.update.process, first.redeemed.At
	who := fmt.Sprintf("%s sent %v", again.sends.Op, first.redeemed.Token)
	stored, ok := storedAt[next]
	switch {
	case ok && stored <= again.begun:
		return "", fmt.Sprintf("%s, though %v had been stored %v before it began", who, next, time.Duration(again.begun-stored))
	case !h.fenced && again.begun < at && again.update.process.died != 0 && again.update.process.died < at:
		// Nothing tells the server that the process had died. A lock, which ends with it, is no fence.
		return wasOvertaken, ""
	case again.begun < first.begun:
		return "", fmt.Sprintf("%s: the request was begun %v before its successor's, and accepted after it",
			who, time.Duration(first.begun-again.begun))
	case h.fenced && again.begun-first.begun < int64(proofLife):
		return "", fmt.Sprintf("%s only %v after %s began, when its proof could still be accepted",
			who, time.Duration(again.begun-first.begun), first.sends.Op)
	}
	if p.died != 0 && p.died <= again.begun {
		return wasKilled, ""
	}
	if r := first.received; r != nil && r.Result != "" && r.At <= again.begun {
		return noResponse, ""
	}
	for _, s := range p.stops {
		if s.to >= at && s.from <= again.begun {
			return wasPaused, ""
		}
	}
	if l := first.update.left; l != nil && l.Result == failure && l.At <= again.begun {
		return noStore, ""
	}
	return "", fmt.Sprintf("%s, and nothing kept %s from storing %v", who, first.sends.Op, next)
}
