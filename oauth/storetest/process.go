package storetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// A process plays a part.
type process struct {
	stdin  io.WriteCloser
	lines  chan string // of its standard output, closed when that ends
	pause  func()      // stops the process until resume, where the system can do that
	resume func()
	kill   func() // ends the process, which has no say in it (SIGKILL), and waits for the end
}

// start starts a process, which ends with ctx at the latest.
func (b *bench) start(ctx context.Context, role string, number int) (*process, error) {
	value, err := json.Marshal(part{b.subject.Name, b.place, b.scratch, role, number})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), partVariable+"="+string(value))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{stdin: stdin, lines: make(chan string, 1<<16)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.lines)
		out := bufio.NewScanner(stdout)
		for out.Scan() {
			if line, ok := strings.CutPrefix(out.Text(), marker); ok {
				p.lines <- line
			}
		}
	}()
	p.pause, p.resume = func() { pause(cmd.Process) }, func() { resume(cmd.Process) }
	p.kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-read // before Wait, which closes the pipe
		_ = cmd.Wait()
	})
	return p, nil
}

// tell sends a command.
func (p *process) tell(command string) error {
	_, err := io.WriteString(p.stdin, command+"\n")
	return err
}

// hear waits for a report and returns its number.
func (p *process) hear(ctx context.Context, word string) (number uint64, err error) {
	select {
	case line, ok := <-p.lines:
		if !ok {
			return 0, errors.New("a process ended too early")
		}
		if _, err := fmt.Sscanf(line, word+" %d", &number); err != nil {
			return 0, fmt.Errorf("a process reported %q, want %s", line, word)
		}
		return number, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for %s from a process: %w", word, context.Cause(ctx))
	}
}

// hearEither waits for one of two reports, and says whether it was the first.
func (p *process) hearEither(ctx context.Context, first, second string) (bool, error) {
	select {
	case line, ok := <-p.lines:
		word, _, _ := strings.Cut(line, " ")
		if !ok || word != first && word != second {
			return false, fmt.Errorf("a process reported %q, want %s or %s", line, first, second)
		}
		return word == first, nil
	case <-ctx.Done():
		return false, fmt.Errorf("waiting for %s or %s from a process: %w", first, second, context.Cause(ctx))
	}
}

// ask is tell and hear.
func (p *process) ask(ctx context.Context, command, word string) (uint64, error) {
	if err := p.tell(command); err != nil {
		return 0, err
	}
	return p.hear(ctx, word)
}

// rest returns the last number that was reported, where none was heard since.
func (p *process) rest(word string, heard uint64) (uint64, error) {
	for line := range p.lines {
		if _, err := fmt.Sscanf(line, word+" %d", &heard); err != nil {
			return 0, fmt.Errorf("a process reported %q, want %s", line, word)
		}
	}
	return heard, nil
}
