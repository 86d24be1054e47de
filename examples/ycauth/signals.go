package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signals is what the program does when it is told to end. It is the only place
// that decides this, for all commands and prompts:
//
//   - The first SIGINT, SIGTERM or SIGHUP cancels ctx, and the command winds up.
//   - The second one ends the program, but not while a new refresh token may be on
//     its way or unsaved: first every hold is waited for. Each is bounded by
//     itself, so further signals change nothing.
//   - SIGPIPE ends nothing: the write that caused it returns an error.
//   - A signal that was ignored when the program started, as nohup and the
//     background jobs of scripts have it, stays ignored, for a command of
//     "ycauth exec" as well.
//   - A command that runs decides for itself how it ends: see delegate.
//
// On Windows, Ctrl-C and Ctrl-Break are SIGINT, and a console that is closed is
// SIGTERM.
type signals struct {
	ctx    context.Context // canceled when the user does not want to go on
	cancel context.CancelFunc
	ch     chan os.Signal
	done   chan struct{} // closed when the goroutine that watches ch has ended

	stopped sync.Once
	mu      sync.Mutex
	child   func(os.Signal) // what a command gets that runs in our place; nil if there is none
	holds   []func()
}

func watchSignals() *signals {
	s := &signals{ch: make(chan os.Signal, 16), done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE} {
		if !signal.Ignored(sig) {
			signal.Notify(s.ch, sig)
		}
	}
	go s.watch()
	return s
}

func (s *signals) watch() {
	for sig := range s.ch {
		s.mu.Lock()
		child := s.child
		s.mu.Unlock()
		switch {
		case sig == syscall.SIGPIPE:
		case child != nil:
			child(sig)
		case s.ctx.Err() == nil:
			s.cancel()
		default:
			s.settle()
			os.Exit(exitInterrupted)
		}
	}
	close(s.done)
}

// delegate has pass, which must not wait for long, decide what becomes of signals, and of
// more kinds of them, unless they are ignored. A nil pass ends that.
func (s *signals) delegate(pass func(os.Signal), more ...os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child = pass
	for _, sig := range more {
		if !signal.Ignored(sig) {
			signal.Notify(s.ch, sig)
		}
	}
}

// hold has the end of the program wait for the function, which must be bounded in
// time, safe for concurrent use, and quick when there is nothing to wait for.
func (s *signals) hold(wait func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = append(s.holds, wait)
}

// settle waits for all holds.
func (s *signals) settle() {
	s.mu.Lock()
	var waits sync.WaitGroup
	for _, wait := range s.holds {
		waits.Go(wait)
	}
	s.mu.Unlock()
	waits.Wait()
}

// stop restores what was before. A signal that came until now has canceled ctx.
func (s *signals) stop() {
	s.stopped.Do(func() {
		signal.Stop(s.ch) // returns when no more can come
		close(s.ch)
		<-s.done
	})
}
