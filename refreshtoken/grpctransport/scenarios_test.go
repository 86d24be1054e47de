package grpctransport_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

func pages(opts refreshtoken.ListOptions) func(context.Context, *refreshtoken.Client, *iamtest.Server) (any, error) {
	return func(ctx context.Context, c *refreshtoken.Client, _ *iamtest.Server) (any, error) {
		var all []*refreshtoken.Page
		for page, err := range c.Pages(ctx, opts) {
			if err != nil {
				return all, err
			}
			all = append(all, page)
		}
		return all, nil
	}
}

func revoke(target refreshtoken.Target) func(context.Context, *refreshtoken.Client, *iamtest.Server) (any, error) {
	return func(ctx context.Context, c *refreshtoken.Client, _ *iamtest.Server) (any, error) {
		return revokeAndWait(ctx, c, target)
	}
}

func revokeAndWait(ctx context.Context, c *refreshtoken.Client, target refreshtoken.Target) (*refreshtoken.RevokeResult, error) {
	op, err := c.Revoke(ctx, target)
	if err != nil {
		return nil, err
	}
	return op.Wait(ctx)
}

func inject(e iamtest.Endpoint, f iamtest.Fault, n int) func(*iamtest.Server) {
	return func(iam *iamtest.Server) { iam.Inject(e, f, n) }
}

// tokens checks how many tokens the pages hold, and how many pages there are.
func tokens(number, ofPages int) func(*testing.T, any, error) {
	return func(t *testing.T, got any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("unexpected: %v", err)
		}
		n, all := 0, got.([]*refreshtoken.Page)
		for _, p := range all {
			n += len(p.RefreshTokens)
		}
		if n != number || len(all) != ofPages {
			t.Errorf("got %d tokens in %d pages, want %d in %d", n, len(all), number, ofPages)
		}
	}
}

func revoked(ids string) func(*testing.T, any, error) {
	return func(t *testing.T, got any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("unexpected: %v", err)
			return
		}
		if is := strings.Join(got.(*refreshtoken.RevokeResult).RefreshTokenIDs, " "); is != ids {
			t.Errorf("revoked %q, want %q", is, ids)
		}
	}
}

// fails checks the kind of an error.
func fails(kinds ...error) func(*testing.T, any, error) {
	return func(t *testing.T, _ any, err error) {
		t.Helper()
		for _, kind := range kinds {
			if !errors.Is(err, kind) {
				t.Errorf("got %v, want %v", err, kind)
			}
		}
	}
}

// failsWith checks the code of an error.
func failsWith(code refreshtoken.Code) func(*testing.T, any, error) {
	return func(t *testing.T, _ any, err error) {
		t.Helper()
		var api *refreshtoken.APIError
		if !errors.As(err, &api) || api.Code != code {
			t.Errorf("got %v, want %v", err, code)
		}
	}
}

// isA checks the type of an error.
func isA[T error](t *testing.T, _ any, err error) {
	t.Helper()
	var e T
	if !errors.As(err, &e) {
		t.Errorf("got %v (%T), want a %T", err, err, e)
	}
}

func retriesAfter(d time.Duration) func(*testing.T, any, error) {
	return func(t *testing.T, _ any, err error) {
		t.Helper()
		var api *refreshtoken.APIError
		if !errors.As(err, &api) || api.RetryAfter != d {
			t.Errorf("got %v, want one with RetryAfter %v", err, d)
		}
	}
}

func scenarios() []scenario {
	var all []scenario
	all = append(all, listing()...)
	all = append(all, revoking()...)
	return append(all, failing()...)
}

func listing() []scenario {
	return []scenario{
		{name: "list", run: pages(refreshtoken.ListOptions{}), check: tokens(5, 1)},
		{name: "list page by page", run: pages(refreshtoken.ListOptions{PageSize: 2}), check: tokens(5, 3)},
		{name: "list nothing", seed: func(_ int, s *iamtest.Seed) { s.SubjectID = "ajeother" },
			run: pages(refreshtoken.ListOptions{}), check: tokens(0, 1)},
		{name: "list from a page on", check: tokens(2, 1), run: func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error) {
			for page, err := range c.Pages(ctx, refreshtoken.ListOptions{PageSize: 3, NoLookahead: true}) {
				if err != nil {
					return nil, err
				}
				return pages(refreshtoken.ListOptions{PageSize: 3, PageToken: page.NextPageToken})(ctx, c, iam)
			}
			return nil, nil
		}},
		{name: "timestamps with every number of digits, and missing ones", seed: func(i int, s *iamtest.Seed) {
			s.CreatedAt = epoch.Add([]time.Duration{0, 500 * time.Millisecond, 123456 * time.Microsecond, 123456789, 1}[i])
			if i > 0 {
				s.LastUsedAt = s.CreatedAt.Add(time.Minute)
			}
		}, run: pages(refreshtoken.ListOptions{})},
		{name: "every protection level", seed: func(i int, s *iamtest.Seed) {
			s.ProtectionLevel = []iamtest.ProtectionLevel{
				iamtest.Unspecified, iamtest.NoProtection, iamtest.InsecureKeyDPoP, iamtest.SecureKeyDPoP, "42",
			}[i]
		}, run: pages(refreshtoken.ListOptions{})},
		{name: "values that JSON has to escape", seed: func(_ int, s *iamtest.Seed) {
			s.ClientInstanceInfo = "a \"b\" \\ <&> \u2028 \x01 \U0001F511 я"
		}, run: pages(refreshtoken.ListOptions{})},
		{name: "pages that are empty but not the last", options: iamtest.Options{SparsePages: true}, seed: func(i int, s *iamtest.Seed) {
			s.ClientID = []string{"client-a", "client-b", "client-b", "client-b", "client-a"}[i]
		}, run: pages(refreshtoken.ListOptions{PageSize: 1, Filter: refreshtoken.Filter{ClientID: "client-a"}}), check: tokens(2, 5)},
		{name: "fields that nobody knows yet", set: inject(iamtest.EndpointList, iamtest.UnknownMembers(), 1),
			run: pages(refreshtoken.ListOptions{}), check: tokens(5, 1)},
		{name: "a page token again and again", check: fails(refreshtoken.ErrPageTokenRepeated),
			run: func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error) {
				var all []*refreshtoken.Page
				for page, err := range c.Pages(ctx, refreshtoken.ListOptions{PageSize: 2, NoLookahead: true}) {
					if err != nil {
						return all, err
					}
					all = append(all, page)
					iam.Inject(iamtest.EndpointList, iamtest.RepeatedPage(), -1)
				}
				return all, nil
			}},
		{name: "every filter", seed: func(i int, s *iamtest.Seed) {
			s.ClientInstanceInfo = []string{"yc/0.141.0", "yc/0.140.0", "yc/0.141.0", "yc/0.141.0", "yc/0.141.0"}[i]
			s.ProtectionLevel = []iamtest.ProtectionLevel{
				iamtest.NoProtection, iamtest.NoProtection, iamtest.InsecureKeyDPoP, iamtest.SecureKeyDPoP, iamtest.NoProtection,
			}[i]
		}, run: pages(refreshtoken.ListOptions{Filter: refreshtoken.Filter{
			ClientID: "yc.oauth.public-sdk", ClientInstanceInfo: "yc/0.141.0",
			ProtectionLevels: []refreshtoken.ProtectionLevel{refreshtoken.NoProtection, refreshtoken.InsecureKeyDPoP},
		}}), check: tokens(3, 1)},
		{name: "a filter value that cannot be quoted",
			run: pages(refreshtoken.ListOptions{Filter: refreshtoken.Filter{ClientID: `a"b`}}), check: isA[*refreshtoken.ArgumentError]},
		{name: "a page size beyond the limit", run: pages(refreshtoken.ListOptions{PageSize: 1001}), check: isA[*refreshtoken.ArgumentError]},
		{name: "a page token of another query", check: failsWith(refreshtoken.CodeInvalidArgument),
			run: func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error) {
				for page, err := range c.Pages(ctx, refreshtoken.ListOptions{PageSize: 2, NoLookahead: true}) {
					if err != nil {
						return nil, err
					}
					return pages(refreshtoken.ListOptions{PageToken: page.NextPageToken, Filter: refreshtoken.Filter{ClientID: "another"}})(ctx, c, iam)
				}
				return nil, nil
			}},
		{name: "tokens of another without a role", run: pages(refreshtoken.ListOptions{SubjectID: "ajeother"}),
			check: func(t *testing.T, _ any, err error) {
				t.Helper()
				fails(refreshtoken.ErrPermissionDenied)(t, nil, err)
				if !strings.Contains(err.Error(), "iam.userAccounts.refreshTokenViewer") {
					t.Errorf("%q names no role", err)
				}
			}},
		{name: "tokens of another with a role", options: iamtest.Options{Roles: map[string][]string{"ajeme": {"iam.userAccounts.refreshTokenViewer"}}},
			seed: func(_ int, s *iamtest.Seed) { s.SubjectID = "ajeother" },
			run:  pages(refreshtoken.ListOptions{SubjectID: "ajeother"}), check: tokens(5, 1)},
	}
}

func revoking() []scenario {
	pending := iamtest.Options{OperationPolls: 2}
	return []scenario{
		{name: "revoke by ID", run: revoke(refreshtoken.ByID("aje2")), check: revoked("aje2")},
		{name: "revoke and poll", options: pending, run: revoke(refreshtoken.ByID("aje2")), check: revoked("aje2")},
		{name: "revoke by the token itself", check: revoked("aje0"), run: func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error) {
			token := iam.Seed(1, func(_ int, s *iamtest.Seed) { s.ID = "aje0again" })[0]
			got, err := revokeAndWait(ctx, c, refreshtoken.ByToken(token))
			if err == nil {
				got.RefreshTokenIDs[0] = strings.TrimSuffix(got.RefreshTokenIDs[0], "again")
			}
			return got, err
		}},
		{name: "revoke by filter", seed: func(i int, s *iamtest.Seed) {
			s.ClientInstanceInfo = []string{"old", "new", "old", "new", "old"}[i]
		}, run: revoke(refreshtoken.ByFilter(refreshtoken.RevokeFilter{ClientID: "yc.oauth.public-sdk", ClientInstanceInfo: "old"})), check: revoked("aje0 aje2 aje4")},
		{name: "revoke by a filter that matches nothing", run: revoke(refreshtoken.ByFilter(refreshtoken.RevokeFilter{ClientID: "nobody"})), check: revoked("")},
		{name: "revoke all of mine", run: revoke(refreshtoken.AllMine()), check: revoked("aje0 aje1 aje2 aje3 aje4")},
		{name: "revoke nothing in particular", run: revoke(refreshtoken.Target{}), check: isA[*refreshtoken.ArgumentError]},
		{name: "revoke what is not there", run: revoke(refreshtoken.ByID("ajenone")), check: fails(refreshtoken.ErrNotFound)},
		{name: "revoke of another without a role", check: fails(refreshtoken.ErrPermissionDenied),
			run: revoke(refreshtoken.ByFilter(refreshtoken.RevokeFilter{SubjectID: "ajeother"}))},
		{name: "an idempotency key is used for something else", check: failsWith(refreshtoken.CodeAlreadyExists),
			run: func(ctx context.Context, c *refreshtoken.Client, _ *iamtest.Server) (any, error) {
				const key = "3f0c1c5e-8d5b-4b0a-9b57-0a6f5b6f7d11"
				if _, err := revokeAndWait(ctx, c, refreshtoken.ByID("aje1").WithIdempotencyKey(key)); err != nil {
					return nil, err
				}
				return revokeAndWait(ctx, c, refreshtoken.ByID("aje2").WithIdempotencyKey(key))
			}},
		{name: "the answer to a revocation is lost", set: inject(iamtest.EndpointRevoke, iamtest.HTTPStatus(503, 0).AfterEffect(), 1),
			run: revoke(refreshtoken.ByID("aje2")), check: revoked("aje2")},
		{name: "an operation fails", options: iamtest.Options{OperationPolls: 1, OperationError: &iamtest.Status{
			Code: int32(refreshtoken.CodeFailedPrecondition), Message: "the token is in use", Field: "refresh_token_id"}},
			run: revoke(refreshtoken.ByID("aje2")), check: failsWith(refreshtoken.CodeFailedPrecondition)},
		{name: "the state of an operation", options: pending,
			run: func(ctx context.Context, c *refreshtoken.Client, _ *iamtest.Server) (any, error) {
				op, err := c.Revoke(ctx, refreshtoken.ByID("aje2"))
				if err != nil {
					return nil, err
				}
				op, err = c.Operation(ctx, op.ID())
				if err != nil {
					return nil, err
				}
				return []any{present(op.ID()), op.Done()}, nil
			}},
		{name: "an operation that is not there", check: fails(refreshtoken.ErrNotFound),
			run: func(ctx context.Context, c *refreshtoken.Client, _ *iamtest.Server) (any, error) {
				_, err := c.Operation(ctx, "ajonone")
				return nil, err
			}},
	}
}

func failing() []scenario {
	list := pages(refreshtoken.ListOptions{})
	return []scenario{
		{name: "no access", src: func(s *source) { s.token = "t1.wrong" }, run: list, check: fails(refreshtoken.ErrUnauthenticated)},
		{name: "log in again", src: func(s *source) { s.err = errNoLogin }, run: list, check: fails(errNoLogin)},
		{name: "unavailable once", set: inject(iamtest.EndpointList, iamtest.HTTPStatus(503, 0), 1), run: list, check: tokens(5, 1)},
		{name: "unavailable", set: inject(iamtest.EndpointList, iamtest.HTTPStatus(503, 0), -1), run: func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error) {
			_, err := list(ctx, c, iam)
			var api *refreshtoken.APIError
			if errors.As(err, &api) {
				api.Message = "" // over REST it is not in a google.rpc.Status
			}
			return nil, err
		}, check: fails(refreshtoken.ErrUnavailable)},
		{name: "unavailable for a time", set: inject(iamtest.EndpointList, iamtest.HTTPStatus(503, 7*time.Second), 1), check: retriesAfter(7 * time.Second),
			run: func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error) {
				_, err := list(ctx, c, iam)
				var api *refreshtoken.APIError
				if errors.As(err, &api) {
					api.Message, api.Details = "", nil // a Retry-After over REST
				}
				return nil, err
			}},
		{name: "the connection breaks", set: inject(iamtest.EndpointRevoke, iamtest.LostAnswer(), -1), run: revoke(refreshtoken.ByID("aje2")),
			check: func(t *testing.T, _ any, err error) {
				t.Helper()
				isA[*refreshtoken.TransportError](t, nil, err)
				fails(refreshtoken.ErrUnavailable)(t, nil, err)
			}},
		{name: "larger than 4 MiB", seed: func(_ int, s *iamtest.Seed) { s.ClientInstanceInfo = strings.Repeat("x", 1000<<10) },
			run: list, check: tokens(5, 1)},
		{name: "too large", seed: func(_ int, s *iamtest.Seed) { s.ClientInstanceInfo = strings.Repeat("x", 4<<20) },
			run: list, check: isA[*refreshtoken.ResponseError]},
		{name: "cancelled before", check: fails(context.Canceled), run: func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return list(ctx, c, iam)
		}},
		{name: "cancelled under way", set: inject(iamtest.EndpointList, iamtest.Slow(time.Minute), 1), check: fails(context.Canceled),
			cancelled: true, run: func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error) {
				defer iam.ClearFaults() // over REST the request does not get that far
				return list(ctx, c, iam)
			}},
		{name: "out of time", set: inject(iamtest.EndpointList, iamtest.Slow(time.Minute), 1), check: fails(context.DeadlineExceeded),
			run: func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error) {
				ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				defer cancel()
				return list(ctx, c, iam)
			}},
	}
}
