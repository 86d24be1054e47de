package piv

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// busyPrompt is a person who is told why a program waits.
type busyPrompt struct {
	*fakePrompt
	told []time.Time
	over int
}

func (b *busyPrompt) Busy(_ context.Context, r BusyRequest) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Serial != 1 {
		panic("another card")
	}
	b.told = append(b.told, time.Now())
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.over++
	}
}

// TestBusyPrompt has another program that keeps the card for longer than a touch
// takes.
func TestBusyPrompt(t *testing.T) {
	for name, begin := range map[string]func(c *fakeCard, free chan struct{}){
		"exclusively":      func(c *fakeCard, _ chan struct{}) { c.foreign = true },
		"in a transaction": func(c *fakeCard, free chan struct{}) { c.hold = free },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
				s, _ := fakeSystem(card)
				prompt := &busyPrompt{fakePrompt: person()}
				k := mustOpen(t, s, Options{Prompt: prompt})
				time.Sleep(2 * grace)
				free := make(chan struct{})
				card.change(func() { begin(card, free) })
				time.AfterFunc(20*time.Second, func() {
					card.change(func() { card.foreign, card.hold = false, nil })
					close(free)
				})
				start := time.Now()
				mustSign(t, k)
				if took := time.Since(start); took < 20*time.Second || took > 20*time.Second+busyRetry {
					t.Errorf("signed after %v", took)
				}
				if len(prompt.told) != 1 || prompt.told[0].Sub(start) != busyDelay || prompt.over != 1 {
					t.Errorf("told at %v, over %d times", prompt.told, prompt.over)
				}
				time.Sleep(2 * grace)
			})
		})
	}
}

// TestLetsOthersIn: a process that signs without a pause lets go of the card now
// and then.
func TestLetsOthersIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyAlways)
		card.touchAfter = 200 * time.Millisecond
		s, _ := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						mustSign(t, k)
					}
				}
			})
		}
		var held, free time.Duration
		const step = 10 * time.Millisecond
		var longest, current time.Duration
		for range 3000 {
			time.Sleep(step)
			if card.connected() {
				held += step
				current = 0
			} else {
				free += step
				current += step
				longest = max(longest, current)
			}
		}
		close(stop)
		wg.Wait()
		time.Sleep(2 * grace)
		if longest < letIn-2*step || longest > letIn+2*step {
			t.Errorf("let go for %v", longest)
		}
		if share := float64(free) / float64(held+free); share < 0.15 || share > 0.25 {
			t.Errorf("the card was free for %.0f %% of the time", 100*share)
		}
	})
}

// TestUnansweredPrompt: while a person does not answer, the card is there for
// everything that needs no PIN, and for other programs.
func TestUnansweredPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyOnce, TouchPolicyNever).with(SlotSignature, PINPolicyNever, TouchPolicyNever)
		s, _ := fakeSystem(card)
		prompt := person()
		prompt.wait = time.Hour
		k := mustOpen(t, s, Options{Prompt: prompt})
		quick := mustOpen(t, s, Options{Slot: SlotSignature})
		signed := make(chan error)
		for range 2 { // the second one waits for the answer to the first one's prompt
			go func() { signed <- trySign(t.Context(), k) }()
		}
		time.Sleep(time.Minute)
		if card.connected() {
			t.Error("the card is held")
		}
		start := time.Now()
		mustSign(t, quick)
		if cards, err := s.cards(t.Context()); err != nil || len(cards) != 1 {
			t.Errorf("Cards = %v, %v", cards, err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		for range 2 {
			if err := <-signed; err != nil {
				t.Error(err)
			}
		}
		if pins, _, _ := prompt.count(); pins != 1 {
			t.Errorf("asked for %d PINs", pins)
		}
		time.Sleep(2 * grace)
	})
}

// TestPromptOneAtATime: of several who want a PIN each, one is asked at a time.
func TestPromptOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyAlways, TouchPolicyNever)
		s, _ := fakeSystem(card)
		prompt := &onePrompt{}
		k := mustOpen(t, s, Options{Prompt: prompt})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := trySign(t.Context(), k); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if prompt.asked != 10 {
			t.Errorf("asked for %d PINs", prompt.asked)
		}
		time.Sleep(2 * grace)
	})
}

// onePrompt is a person who can answer one question at a time.
type onePrompt struct {
	mu    sync.Mutex
	asked int
}

func (p *onePrompt) PIN(context.Context, PINRequest) (string, error) {
	if !p.mu.TryLock() {
		panic("two questions at once")
	}
	defer p.mu.Unlock()
	time.Sleep(time.Second)
	p.asked++
	return "123456", nil
}

func (*onePrompt) Touch(context.Context, TouchRequest) func() { return nil }
