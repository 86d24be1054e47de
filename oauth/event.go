package oauth

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// An EventKind is the type of an [Event].
type EventKind string

const (
	// EventRenewed means that the server issued an access token for the refresh token.
	EventRenewed EventKind = "renewed"
	// EventAdopted means that the store had a newer token, which another process or
	// client obtained; no request was made.
	EventAdopted EventKind = "adopted"
	// EventRetry means that one attempt of a request failed and another one followed. Like
	// all events of a renewal, it is delivered after the store was unlocked; Event.Time is
	// when it happened.
	EventRetry EventKind = "retry"
	// EventRenewFailed means that a renewal failed. A token that is still valid continues
	// to be served.
	EventRenewFailed EventKind = "renew_failed"
	// EventSaveFailed means that the session could not be saved; Err is a [*PersistError].
	EventSaveFailed EventKind = "save_failed"
	// EventSaved means that a session was saved after EventSaveFailed.
	EventSaved EventKind = "saved"
	// EventInvalidated means that a resource rejected the token.
	EventInvalidated EventKind = "invalidated"
	// EventReplaced means that another process or client has logged in, and that the
	// tokens of its session are served from now on.
	EventReplaced EventKind = "replaced"
	// EventWaiting means that a renewal has been waiting for the store's lock for
	// two seconds: another process renews, or hangs.
	EventWaiting EventKind = "waiting"
	// EventLogin means that a user logged in, or a refresh token was imported.
	EventLogin EventKind = "login"
	// EventLogout means that the session was deleted, by [Client.Logout] or by
	// another process.
	EventLogout EventKind = "logout"
	// EventNeedsPerson means that a session is due for [TokenSource.KeepAlive] or
	// [Pool.KeepAlive] and was left alone, because signing with its key needs a person.
	EventNeedsPerson EventKind = "needs_person"
)

// A Cause is why a renewal was started.
type Cause string

const (
	// CauseStale means that the token is close to its expiry; callers do not wait.
	CauseStale Cause = "stale"
	// CauseInvalid means that there is no token, or it has expired; callers wait.
	CauseInvalid Cause = "invalid"
	// CauseForced means that [TokenSource.Renew] was called.
	CauseForced Cause = "forced"
	// CauseRejected means that a resource rejected the token; callers wait.
	CauseRejected Cause = "rejected"
	// CauseKeepAlive means that the refresh token may expire before somebody uses it.
	CauseKeepAlive Cause = "keep_alive"
)

// An Event describes what the client did. It contains no secret.
type Event struct {
	Kind       EventKind
	Key        string // of the session in a [Pool]; "" otherwise
	Time       time.Time
	Cause      Cause         // of renewals; "" otherwise
	Duration   time.Duration // of the operation that ended with this event
	Attempt    int           // number of the attempt that failed, from 1. Set for EventRetry
	Wait       time.Duration // time until the next attempt. Set for EventRetry
	Generation uint64        // of the session after the event; 0 if unknown
	Rotated    bool          // whether the server replaced the refresh token. Set for EventRenewed
	Expiry     time.Time     // of the access token, if there is one
	Err        error         // the failure, or nil
}

// ErrorKind classifies Err for use as a metric label: "" without an error, or
// "login_required", "outcome_unknown", "server", "server_temporary", "unreachable",
// "persist", "store", "timeout", "canceled" or "other".
func (e Event) ErrorKind() string {
	var server *ServerError
	var persist *PersistError
	var store *StoreError
	var unreachable *UnreachableError
	switch {
	case e.Err == nil:
		return ""
	case errors.Is(e.Err, ErrLoginRequired):
		return "login_required"
	case errors.As(e.Err, &persist):
		return "persist"
	case errors.Is(e.Err, ErrOutcomeUnknown):
		return "outcome_unknown"
	case errors.As(e.Err, &server):
		if server.Temporary() {
			return "server_temporary"
		}
		return "server"
	case errors.As(e.Err, &unreachable):
		return "unreachable"
	case errors.As(e.Err, &store):
		return "store"
	case errors.Is(e.Err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(e.Err, context.Canceled):
		return "canceled"
	}
	return "other"
}

// LogEvents returns an observer that writes each event to l: failures as
// warnings, everything else at the debug level.
func LogEvents(l *slog.Logger) func(Event) {
	return func(e Event) {
		level := slog.LevelDebug
		if e.Err != nil && e.Kind != EventRetry {
			level = slog.LevelWarn
		}
		if !l.Enabled(context.Background(), level) {
			return
		}
		attrs := make([]slog.Attr, 0, 9)
		if e.Key != "" {
			attrs = append(attrs, slog.String("key", e.Key))
		}
		if e.Cause != "" {
			attrs = append(attrs, slog.String("cause", string(e.Cause)))
		}
		if e.Duration > 0 {
			attrs = append(attrs, slog.Duration("duration", e.Duration))
		}
		if e.Attempt > 0 {
			attrs = append(attrs, slog.Int("attempt", e.Attempt), slog.Duration("wait", e.Wait))
		}
		if e.Generation > 0 {
			attrs = append(attrs, slog.Uint64("generation", e.Generation))
		}
		if e.Kind == EventRenewed {
			attrs = append(attrs, slog.Bool("rotated", e.Rotated))
		}
		if !e.Expiry.IsZero() {
			attrs = append(attrs, slog.Time("expiry", e.Expiry))
		}
		if e.Err != nil {
			attrs = append(attrs, slog.String("error_kind", e.ErrorKind()), slog.String("error", e.Err.Error()))
		}
		l.LogAttrs(context.Background(), level, "oauth: "+string(e.Kind), attrs...)
	}
}
