// Package powerloss simulates, for tests, what a failure of the power leaves of a
// directory that package durable writes to.
//
// It believes in no more than POSIX promises: what was written to a file since
// its last fsync is there, or not, or cut off, or zeros, or before what a
// truncation should have removed; a name that was given,
// changed or removed since the last fsync of the directory has that fate on its
// own.
package powerloss

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ycauth/ycauth-go/internal/durable"
)

// A Disk remembers the steps of this process in one directory.
type Disk struct {
	dir    string
	before map[string][]byte // the files that were there

	mu    sync.Mutex
	steps []durable.Op
}

// Watch begins to watch a directory, which need not exist. stop ends it.
func Watch(dir string) (d *Disk, stop func(), err error) {
	d = &Disk{dir: filepath.Clean(dir), before: map[string][]byte{}}
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, nil, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if d.before[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, nil, err
		}
	}
	return d, durable.SetHook(&durable.Hook{After: d.record}), nil
}

func (d *Disk) record(op durable.Op) {
	op.Data = slices.Clone(op.Data)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps = append(d.steps, op)
}

// Steps returns the steps so far.
func (d *Disk) Steps() []durable.Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.steps)
}

// An inode is a file, whatever its names.
type inode struct {
	now, synced []byte
	cut         []byte // what a truncation removed that is not on the disk yet
	dirty       bool
}

// names is a directory.
type names map[string]*inode

// A change of a directory that is not on the disk yet.
type change func(names)

// Crash writes into a new directory what a failure of the power may leave after
// the given steps, which are some of those that Steps returned.
func (d *Disk) Crash(steps []durable.Op, chance *rand.Rand, into string) error {
	now, onDisk, pending := names{}, names{}, []change(nil)
	for name, data := range d.before {
		now[name] = &inode{now: data, synced: data}
	}
	maps.Copy(onDisk, now)
	alter := func(c change) {
		c(now)
		pending = append(pending, c)
	}
	for _, op := range steps {
		dir, name := filepath.Split(op.Path)
		if op.Kind == durable.SyncDir {
			dir, name = op.Path, ""
		}
		if filepath.Clean(dir) != d.dir {
			continue
		}
		file, to := now[name], filepath.Base(op.To)
		switch op.Kind {
		case durable.OpenFile:
			if file == nil {
				file = &inode{}
				alter(func(n names) { n[name] = file })
			}
		case durable.Truncate:
			file.now, file.cut, file.dirty = nil, file.now, true
		case durable.Write, durable.Probe:
			file.now, file.dirty = slices.Concat(op.Data, file.now[min(len(op.Data), len(file.now)):]), true
		case durable.SyncFile:
			file.synced, file.cut, file.dirty = file.now, nil, false
		case durable.Rename:
			alter(func(n names) { n[to] = file; delete(n, name) })
		case durable.Link:
			alter(func(n names) { n[to] = file })
		case durable.Unlink:
			alter(func(n names) { delete(n, name) })
		case durable.SyncDir:
			onDisk, pending = maps.Clone(now), nil
		}
	}
	for _, c := range pending {
		if chance.IntN(2) == 0 {
			c(onDisk)
		}
	}
	return write(onDisk, chance, into)
}

func write(files names, chance *rand.Rand, into string) error {
	if err := os.MkdirAll(into, 0o700); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(into, name), files[name].left(chance), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// left is what is left of a file.
func (f *inode) left(chance *rand.Rand) []byte {
	if !f.dirty {
		return f.synced
	}
	switch chance.IntN(5) {
	case 0:
		return f.synced
	case 1:
		return f.now[:chance.IntN(len(f.now)+1)]
	case 2:
		return make([]byte, len(f.now))
	case 3: // the truncation is not there, and what was written since is
		return slices.Concat(f.now, f.cut[min(len(f.now), len(f.cut)):])
	}
	return f.now
}
