package pivtest

import "time"

// SetTouch replaces the finger. A touch the card waits for already is not affected.
func (c *Card) SetTouch(f TouchFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch = f
}

// SetTouchTimeout changes how long the card waits for a touch before it answers 6982.
func (c *Card) SetTouchTimeout(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touchTimeout = d
}

// SetPINTries changes how many tries the PIN has left. 0 blocks it. Entering it right brings all tries back, as ever.
func (c *Card) SetPINTries(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pin.tries = n
}

// PINTries returns how many tries the PIN has left.
func (c *Card) PINTries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pin.tries
}

// SetPUKTries changes how many tries the PUK has left. 0 blocks it.
func (c *Card) SetPUKTries(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.puk.tries = n
}

// PUKTries returns how many tries the PUK has left.
func (c *Card) PUKTries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.puk.tries
}

// PINVerified reports whether the card has seen the right PIN in its present session.
func (c *Card) PINVerified() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session.pinVerified
}

// PowerCycle makes the card forget what it knows of the program: selected application, PIN, management key. A reader does
// it when it resets the card or takes its power.
func (c *Card) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = session{}
}

// unplugged makes the card forget what it forgets without USB: the session, and the touch it had.
func (c *Card) unplugged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.touched = session{}, time.Time{}
}

// NoStatus stands for a response that breaks off before its status word; see [Card.FailNext].
const NoStatus StatusWord = 0

// failure is what some commands are answered with.
type failure struct {
	left   int
	status StatusWord
}

// FailNext makes the card answer the next n commands with an instruction with a status word, and not carry them out.
func (c *Card) FailNext(ins byte, n int, status StatusWord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing[ins] = failure{n, status}
}

// fails reports what a command is answered with instead of being carried out.
func (c *Card) fails(ins byte) (StatusWord, bool) {
	f, ok := c.failing[ins]
	if !ok || f.left == 0 {
		return 0, false
	}
	c.failing[ins] = failure{f.left - 1, f.status}
	return f.status, true
}
