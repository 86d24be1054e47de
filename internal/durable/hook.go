package durable

import "sync/atomic"

// An Op is one step of this package that changes a file system.
type Op struct {
	Kind OpKind
	Path string // of the file, or of the directory for MakeDir and SyncDir
	To   string // the new name, for Rename and Link
	Data []byte // what is written, for Write and Probe
}

// An OpKind is what an [Op] does.
type OpKind string

// The steps.
const (
	OpenFile OpKind = "open"     // for writing; the file is created if it is missing
	Probe    OpKind = "probe"    // write bytes of no meaning, which a Truncate removes
	Truncate OpKind = "truncate" // to nothing
	Reserve  OpKind = "reserve"  // blocks past the end of the file, where the system can
	Write    OpKind = "write"    // at the start of the file
	SyncFile OpKind = "fsync"
	Rename   OpKind = "rename"
	Link     OpKind = "link"
	Unlink   OpKind = "unlink"
	MakeDir  OpKind = "mkdir"
	SyncDir  OpKind = "fsync directory"
)

// A Hook lets tests watch the steps of this process, delay them and make them
// fail. Its functions are called by the goroutines that take the steps.
type Hook struct {
	// Before is called before each step; the step fails with its error.
	// Optional.
	Before func(Op) error

	// After is called after each step that succeeded. Optional.
	After func(Op)
}

var hook atomic.Pointer[Hook]

// SetHook installs a hook, for tests only. restore installs the previous one.
func SetHook(h *Hook) (restore func()) {
	old := hook.Swap(h)
	return func() { hook.Store(old) }
}

// do takes a step.
func do(op Op, step func() error) error {
	h := hook.Load()
	if h == nil {
		return step()
	}
	if h.Before != nil {
		if err := h.Before(op); err != nil {
			return err
		}
	}
	err := step()
	if err == nil && h.After != nil {
		h.After(op)
	}
	return err
}
