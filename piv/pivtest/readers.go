package pivtest

import "context"

// Readers is a pcscd with two virtual readers that this process runs, or that was running already.
type Readers struct{ daemon *daemon }

// RunReaders waits until no test on this machine uses the virtual readers and runs pcscd with them, as [Start] does for tests.
// It is for programs: a test that calls Start while its process has Readers would wait for itself. Cards made by [New] go into
// the first reader; the second one listens one port higher. It fails with [ErrNotInstalled].
func RunReaders(ctx context.Context) (*Readers, error) {
	d, err := startDaemon(ctx, true)
	if err != nil {
		return nil, err
	}
	return &Readers{d}, nil
}

// Names returns the names of the readers in PC/SC.
func (r *Readers) Names() []string { return r.daemon.names[:] }

// Close ends pcscd, unless it was running before.
func (r *Readers) Close() error { return r.daemon.stop() }
