package iamtest

import (
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// operation is an Operation that may still be going on.
type operation struct {
	iamapi.Operation
	polls  int // that have to see it unfinished
	doneAt time.Time
	tokens []*refreshToken
	fails  *iamapi.Status
}

// operations are those begun so far. Methods are called with Server.mu held.
type operations struct {
	byID    map[string]*operation
	byKey   map[idempotency]*keyed
	pending []*operation
	sweepAt int // do so when there are this many
}

// keepOperations is how long a finished Operation can be asked for, and for how
// long an idempotency key is remembered.
const keepOperations = 24 * time.Hour

// sweep forgets the old ones when their number has doubled.
func (ops *operations) sweep(now time.Time) {
	if len(ops.byID) < max(ops.sweepAt, minSweep) {
		return
	}
	old := func(op *operation) bool { return op.Done && now.Sub(op.ModifiedAt) > keepOperations }
	maps.DeleteFunc(ops.byID, func(_ string, op *operation) bool { return old(op) })
	maps.DeleteFunc(ops.byKey, func(_ idempotency, k *keyed) bool { return old(k.op) })
	ops.sweepAt = 2 * len(ops.byID)
}

// idempotency is what makes two requests one.
type idempotency struct{ subject, key string }

type keyed struct {
	op      *operation
	request revokeKey
}

// revokeKey is a revokeRequest that can be compared.
type revokeKey struct {
	kind, value string
	filter      iamapi.RevokeFilter
}

func (r *revokeRequest) key() revokeKey {
	switch {
	case r.RefreshTokenID != nil:
		return revokeKey{kind: "id", value: *r.RefreshTokenID}
	case r.RefreshToken != nil:
		return revokeKey{kind: "token", value: *r.RefreshToken}
	}
	return revokeKey{kind: "filter", filter: *r.RevokeFilter}
}

func newOperations() operations {
	return operations{byID: map[string]*operation{}, byKey: map[idempotency]*keyed{}}
}

// A revokeRequest is one that may be wrong.
type revokeRequest iamapi.RevokeRequest

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func (r *revokeRequest) check() *iamapi.Status {
	n := 0
	for _, set := range []bool{r.RefreshTokenID != nil, r.RefreshToken != nil, r.RevokeFilter != nil} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		// The documentation says that a request without any of them revokes every
		// token of the subject; the protobuf definition says exactly_one.
		return invalid("filter", "exactly one of refresh_token_id, refresh_token and revoke_filter is needed")
	case r.RefreshTokenID != nil:
		if *r.RefreshTokenID == "" {
			return invalid("refresh_token_id", "is empty")
		}
		return tooLong("refresh_token_id", *r.RefreshTokenID, maxID)
	case r.RefreshToken != nil:
		if *r.RefreshToken == "" {
			return invalid("refresh_token", "is empty")
		}
		return tooLong("refresh_token", *r.RefreshToken, maxTokenLen)
	}
	return firstError(
		tooLong("revoke_filter.client_id", r.RevokeFilter.ClientID, maxID),
		tooLong("revoke_filter.subject_id", r.RevokeFilter.SubjectID, maxID),
		tooLong("revoke_filter.client_instance_info", r.RevokeFilter.ClientInstanceInfo, maxInstanceInfo),
	)
}

func (s *Server) revoke(now time.Time, o *Options, c iamapi.Caller, req revokeRequest, key string) (*iamapi.Operation, *iamapi.Status) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if key != "" && !uuid.MatchString(key) {
		return nil, &iamapi.Status{Code: iamapi.InvalidArgument, Message: "the idempotency key is not a UUID"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(now)
	if k := s.ops.byKey[idempotency{c.SubjectID, key}]; k != nil {
		if k.request != req.key() {
			return nil, &iamapi.Status{Code: iamapi.AlreadyExists, Message: "the idempotency key came with another request before"}
		}
		return k.op.snapshot(), nil
	}
	tokens, subject, err := s.targets(now, o, c, req)
	if err != nil {
		return nil, err
	}
	op := &operation{polls: o.OperationPolls, doneAt: now.Add(o.OperationDelay), tokens: tokens, fails: o.OperationError.api()}
	op.ID, op.Description = newID("ajo"), "Revoke refresh tokens"
	op.CreatedAt, op.ModifiedAt, op.CreatedBy = now, now, c.SubjectID
	op.Metadata.SubjectID = subject
	for _, t := range tokens {
		op.Metadata.RefreshTokenIDs = append(op.Metadata.RefreshTokenIDs, t.id)
	}
	s.ops.sweep(now)
	s.ops.byID[op.ID] = op
	s.ops.pending = append(s.ops.pending, op)
	if key != "" {
		s.ops.byKey[idempotency{c.SubjectID, key}] = &keyed{op, req.key()}
	}
	s.settle(now)
	return op.snapshot(), nil
}

// targets are the tokens that the request means.
func (s *Server) targets(now time.Time, o *Options, c iamapi.Caller, req revokeRequest) (tokens []*refreshToken, subject string, err *iamapi.Status) {
	var one *refreshToken
	switch {
	case req.RefreshTokenID != nil:
		one = s.state.ids[*req.RefreshTokenID]
	case req.RefreshToken != nil:
		s.secret(*req.RefreshToken)
		one = s.state.refresh[*req.RefreshToken]
	default:
		return s.filtered(now, o, c, *req.RevokeFilter)
	}
	if one == nil || !one.listed(now, o) {
		return nil, "", &iamapi.Status{Code: iamapi.NotFound, Message: "there is no such refresh token"}
	}
	subject = one.grant.subject
	return []*refreshToken{one}, subject, o.mayRevoke(c, subject)
}

func (s *Server) filtered(now time.Time, o *Options, c iamapi.Caller, f iamapi.RevokeFilter) (tokens []*refreshToken, subject string, err *iamapi.Status) {
	subject = f.SubjectID
	if subject == "" {
		subject = c.SubjectID
	}
	if err := o.mayRevoke(c, subject); err != nil {
		return nil, "", err
	}
	for _, t := range s.state.of(subject) {
		if t.listed(now, o) && (f.ClientID == "" || f.ClientID == t.grant.client) &&
			(f.ClientInstanceInfo == "" || f.ClientInstanceInfo == t.grant.info) {
			tokens = append(tokens, t)
		}
	}
	return tokens, subject, nil
}

func (o *Options) mayRevoke(c iamapi.Caller, subject string) *iamapi.Status {
	return o.permitted(c, subject, "revoke", roleUserAdmin, roleTokenRevoker)
}

func (s *Server) operation(now time.Time, c iamapi.Caller, id string) (*iamapi.Operation, *iamapi.Status) {
	if err := tooLong("operation_id", id, maxID); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	op := s.ops.byID[id]
	switch {
	case op == nil:
		return nil, &iamapi.Status{Code: iamapi.NotFound, Message: "there is no such operation"}
	case op.CreatedBy != c.SubjectID:
		return nil, &iamapi.Status{Code: iamapi.PermissionDenied, Message: "the operation is another subject's"}
	}
	s.settle(now)
	defer func() { op.polls = max(0, op.polls-1) }()
	return op.snapshot(), nil
}

// settle finishes the operations whose time has come. It is called with
// Server.mu held, before anything that their end could change.
func (s *Server) settle(now time.Time) {
	if len(s.ops.pending) == 0 {
		return
	}
	o := s.options()
	s.ops.pending = slices.DeleteFunc(s.ops.pending, func(op *operation) bool {
		if op.polls > 0 || now.Before(op.doneAt) {
			return false
		}
		op.finish(now, s.state, o)
		return true
	})
}

func (op *operation) finish(now time.Time, st *state, o *Options) {
	op.Done, op.ModifiedAt = true, now
	if op.fails != nil {
		op.Error = op.fails
		return
	}
	for _, t := range op.tokens {
		st.end(t.grant, "revoked through the API", o)
	}
	op.Response = &iamapi.RevokeResponse{RefreshTokenIDs: op.Metadata.RefreshTokenIDs}
}

// snapshot is the operation as it is now.
func (op *operation) snapshot() *iamapi.Operation {
	o := op.Operation
	o.Metadata.RefreshTokenIDs = slices.Clone(o.Metadata.RefreshTokenIDs)
	if o.Response != nil {
		o.Response = &iamapi.RevokeResponse{RefreshTokenIDs: slices.Clone(o.Response.RefreshTokenIDs)}
	}
	return &o
}

// foreignOperation is one that the server never began.
func foreignOperation(now time.Time) *iamapi.Operation {
	subject, ids := newID("aje"), []string{newID("ajr")}
	return &iamapi.Operation{
		ID: newID("ajo"), Description: "Revoke refresh tokens", CreatedAt: now, CreatedBy: subject, ModifiedAt: now,
		Done: true, Metadata: iamapi.RevokeMetadata{SubjectID: subject, RefreshTokenIDs: ids}, Response: &iamapi.RevokeResponse{RefreshTokenIDs: ids},
	}
}
