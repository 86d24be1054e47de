package pivtest

import "time"

// Exchange is one command APDU that reached the card and the status word it got. It holds no data of either, so no PIN and no
// key: parts of a chained command and every GET RESPONSE are exchanges of their own.
type Exchange struct {
	Start time.Time
	Took  time.Duration // until the answer; a touch is in it

	CLA, INS, P1, P2 byte
	DataLen          int // bytes of command data
	AnswerLen        int // bytes of answer data, without the status word
	Status           StatusWord
}

// Log returns the commands that reached the card since it was made or [Card.ResetLog] was called, oldest first. A command
// that was cut off by removing the card is in it with status word 0.
func (c *Card) Log() []Exchange {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Exchange(nil), c.log...)
}

// Count returns how many commands with one of the instructions reached the card since [Card.ResetLog]; without
// instructions it counts all.
func (c *Card) Count(ins ...byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(ins) == 0 {
		return len(c.log)
	}
	n := 0
	for _, e := range c.log {
		for _, i := range ins {
			if e.INS == i {
				n++
			}
		}
	}
	return n
}

// ResetLog forgets the commands logged so far.
func (c *Card) ResetLog() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = nil
}
