package iamtest

import (
	"context"
	"slices"
	"strings"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// An api is what the other faces of a server stand on.
type api struct{ s *Server }

func init() {
	iamapi.Of = func(server any) iamapi.API { return api{server.(*Server)} }
}

func (a api) Authenticate(token string) (iamapi.Caller, error) {
	t, problem := a.s.lookupAccess(a.s.clock.Now(), token)
	switch {
	case problem != "":
		return iamapi.Caller{}, &iamapi.Status{Code: iamapi.Unauthenticated, Message: problem}
	case t.jkt != "":
		return iamapi.Caller{}, &iamapi.Status{Code: iamapi.Unauthenticated, Message: "the access token is bound to a key"}
	}
	return iamapi.Caller{SubjectID: t.subject, ClientID: t.client}, nil
}

func (a api) ListRefreshTokens(c iamapi.Caller, req iamapi.ListRequest) (*iamapi.ListResponse, error) {
	return orNil(a.s.list(a.s.clock.Now(), a.s.options(), c, listRequest(req)))
}

func (a api) RevokeRefreshTokens(c iamapi.Caller, req iamapi.RevokeRequest, idempotencyKey string) (*iamapi.Operation, error) {
	return orNil(a.s.revoke(a.s.clock.Now(), a.s.options(), c, revokeRequest(req), idempotencyKey))
}

func (a api) GetOperation(c iamapi.Caller, id string) (*iamapi.Operation, error) {
	return orNil(a.s.operation(a.s.clock.Now(), c, id))
}

func (a api) Endpoints() []iamapi.Endpoint { return a.s.endpoints() }

func (a api) SetEndpoint(id, address string) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.s.api = slices.DeleteFunc(a.s.api, func(e iamapi.Endpoint) bool { return e.ID == id })
	if address != "" {
		a.s.api = append(a.s.api, iamapi.Endpoint{ID: id, Address: address})
		slices.SortFunc(a.s.api, func(a, b iamapi.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	}
}

func (a api) TakeFault(endpoint string) iamapi.Fault {
	f, _, _ := a.s.takeFault(Endpoint(endpoint))
	return f.is
}

func (a api) Record(c iamapi.Call) {
	a.s.record(context.Background(), Request{
		Endpoint: Endpoint(c.Endpoint), Method: c.Method, Path: c.Path, Status: c.Status, Error: c.Error,
		ClientID: c.ClientID, Subject: c.Subject, Credentials: c.Credentials,
		UserAgent: c.UserAgent, IdempotencyKey: c.IdempotencyKey, ClientRequestID: c.ClientRequestID,
		ClientTraceID: c.ClientTraceID, RequestID: c.RequestID, Fault: c.Fault,
	})
}

// orNil keeps a nil *Status from becoming an error that is not nil.
func orNil[T any](v *T, err *iamapi.Status) (*T, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}
