package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/seal"
)

var (
	// ErrSchema means that the table is missing, or is not the one that this release
	// knows: [Set.Migrate] creates and updates it.
	ErrSchema = errors.New("the table is missing, or not of this release")

	// ErrUnavailable means that the server cannot be reached, is starting, stopping or
	// overloaded, is a standby, or did not respond in time. Such an [*Error] is Temporary.
	ErrUnavailable = errors.New("the database is not available")

	// ErrKeyVersion means that a session was sealed with a key of a version that Keys
	// does not have. Such an error matches [oauth.ErrSessionFormat], too.
	ErrKeyVersion = seal.ErrKeyVersion

	// ErrSealKey means that the session was sealed with another key, or in another
	// row, or was altered. Such an error matches [oauth.ErrSessionFormat], too.
	ErrSealKey = seal.ErrSealKey

	// ErrInTheClear means that a session is stored in the clear, and Options.InTheClear
	// is not set. Such an error matches [oauth.ErrSessionFormat], too.
	ErrInTheClear = seal.ErrInTheClear

	// ErrKey means that a text is not a key for a session.
	ErrKey = errors.New("not a key for a session")
)

// An Error says what failed, and what helps. It holds no secret. What it matches:
// one of this package's Err variables, [oauth.ErrSessionFormat] if a session cannot be
// read, [oauth.ErrLeaseLost], or the error of a ctx. If the server said something,
// [errors.As] finds a [*pgconn.PgError] without those of its fields that can quote a row.
type Error struct {
	Op    string // what failed, such as "take the lease"
	Table string // with its schema, quoted
	Key   string // of the session; "" if it is about the table
	Kind  error  // one of this package's Err variables; nil if it is none of these
	Err   error  // the cause; may be nil

	remedy string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("pgstore: ")
	if e.Op != "" {
		b.WriteString("cannot " + e.Op + ": ")
	}
	b.WriteString("table " + e.Table)
	if e.Key != "" {
		fmt.Fprintf(&b, ", key %q", e.Key)
	}
	if e.Kind != nil && !errors.Is(e.Err, e.Kind) {
		b.WriteString(": " + e.Kind.Error())
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.remedy != "" {
		b.WriteString(" (" + e.remedy + ")")
	}
	return b.String()
}

// Unwrap makes the error match its kind and its cause.
func (e *Error) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// Temporary reports whether the same call can succeed later, without anybody having
// done something about it.
func (e *Error) Temporary() bool { return errors.Is(e.Kind, ErrUnavailable) }

const remedyUnreadable = "it was not used and not overwritten"

// unreadable is about a row that is not a session that can be used.
func (s *Set) unreadable(op, key string, err error) error {
	remedy := remedyUnreadable + ": if a newer release wrote it, update this program; otherwise call Set.Delete and log in again"
	var kind error
	switch {
	case errors.Is(err, ErrKeyVersion):
		kind, remedy = ErrKeyVersion, remedyUnreadable+": give Options.Keys that version, too"
	case errors.Is(err, ErrSealKey):
		kind, remedy = ErrSealKey, remedyUnreadable+": bring back the key that it was sealed with, or, if the table was renamed, set Options.SealedAs; "+
			"if the key is lost, or the row was altered, call Set.Delete and log in again"
	case errors.Is(err, ErrInTheClear):
		kind, remedy = ErrInTheClear, remedyUnreadable+": set Options.InTheClear until Set.Reseal has sealed all sessions"
	}
	if !errors.Is(err, oauth.ErrSessionFormat) {
		err = fmt.Errorf("%w (%w)", err, oauth.ErrSessionFormat)
	}
	return &Error{Op: op, Table: s.sql.table, Key: key, Kind: kind, Err: err, remedy: remedy}
}

// ended is about a ctx that ended.
func (s *Set) ended(ctx context.Context, op, key string) *Error {
	return &Error{Op: op, Table: s.sql.table, Key: key, Err: retry.Ended(ctx)}
}

func (s *Set) lost(op, key string) error {
	return &Error{Op: op, Table: s.sql.table, Key: key, Err: oauth.ErrLeaseLost}
}

// kinds maps the SQLSTATE codes and classes that a remedy is known for.
var kinds = []struct {
	code   string // or what it begins with
	kind   error
	remedy string
}{
	{"42P01", ErrSchema, "call Set.Migrate, or apply Set.Migrations"},
	{"42703", ErrSchema, "call Set.Migrate, or apply Set.Migrations"},
	{"3F000", ErrSchema, "call Set.Migrate, or apply Set.Migrations"},
	{insufficientPrivilege, nil, "grant the user USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on the table"},
	{"25006", ErrUnavailable, "it is a standby, or read-only: connect with target_session_attrs=read-write"},
	{"57014", ErrUnavailable, "the server canceled the statement: see its statement_timeout"},
	{"55P03", ErrUnavailable, "something holds a lock on the table: try again later"},
	{"53300", ErrUnavailable, "the server has no connection left: use a smaller pool, or a pooler"},
	{"53100", ErrUnavailable, "the server's disk is full"},
	{"08", ErrUnavailable, ""}, // connection exception
	{"40", ErrUnavailable, ""}, // transaction rollback: serialization failure, deadlock
	{"53", ErrUnavailable, ""}, // insufficient resources
	{"57P", ErrUnavailable, ""},
	{"58", ErrUnavailable, ""}, // system error
	{"28", nil, "see the user and the password of the pool"},
	{"3D000", nil, "see the database of the pool"},
}

const insufficientPrivilege = "42501"

// failed is about a statement. ctx is the caller's.
func (s *Set) failed(ctx context.Context, op, key string, err error) *Error {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSaveTimeout) {
		return s.ended(ctx, op, key)
	}
	e := &Error{Op: op, Table: s.sql.table, Key: key}
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		e.Err = withoutValues(pg)
		for _, k := range kinds {
			if strings.HasPrefix(pg.Code, k.code) {
				e.Kind, e.remedy = k.kind, k.remedy
				break
			}
		}
		if pg.Code == insufficientPrivilege && op == opMigrate {
			e.remedy = "grant the user CREATE on the schema, or on the database if the schema is missing; or let somebody else apply Set.Migrations"
		}
	case errors.Is(err, context.DeadlineExceeded): // of one attempt, not of ctx
		e.Kind, e.Err = ErrUnavailable, fmt.Errorf("no response within %v, the wait for a connection of the pool included", s.timeout)
	case broken(err):
		e.Kind, e.Err = ErrUnavailable, err
	default:
		e.Err = err
	}
	return e
}

// broken reports whether err is about the connection.
func broken(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	var number syscall.Errno
	return errors.As(err, &connect) || errors.As(err, &network) || errors.As(err, &number) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// withoutValues copies what the server said without what can quote a row or a parameter.
func withoutValues(pg *pgconn.PgError) *pgconn.PgError {
	safe := &pgconn.PgError{
		Severity: pg.Severity, SeverityUnlocalized: pg.SeverityUnlocalized, Code: pg.Code, Message: pg.Message,
		SchemaName: pg.SchemaName, TableName: pg.TableName, ColumnName: pg.ColumnName,
		DataTypeName: pg.DataTypeName, ConstraintName: pg.ConstraintName,
		File: pg.File, Line: pg.Line, Routine: pg.Routine,
	}
	for _, class := range []string{"22", "23", "44", "P0"} { // data, constraints, check options, PL/pgSQL
		if strings.HasPrefix(pg.Code, class) {
			safe.Message = "the server's message is left out, because it can quote the row"
		}
	}
	return safe
}
