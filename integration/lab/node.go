package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// process returns the process of node n, nil if it is down.
func (l *Lab) process(n int) *server {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[n-1]
}

func (l *Lab) setProcess(n int, p *server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[n-1] = p
}

// Running reports whether node n has a process.
func (l *Lab) Running(n int) bool {
	p := l.process(n)
	return p != nil && p.alive()
}

// Kill ends node n with SIGKILL and returns when it is gone.
func (l *Lab) Kill(n int) error { return l.end(n, syscall.SIGKILL) }

// Terminate asks node n to stop with SIGTERM and returns when it is gone.
func (l *Lab) Terminate(n int) error { return l.end(n, syscall.SIGTERM) }

// Dump ends node n with SIGQUIT: what its goroutines were doing is then at the end of its log.
func (l *Lab) Dump(n int) error { return l.end(n, syscall.SIGQUIT) }

func (l *Lab) end(n int, how syscall.Signal) error {
	p := l.process(n)
	if p == nil {
		return fmt.Errorf("node %d is down", n)
	}
	if err := p.signal(how); err != nil {
		return fmt.Errorf("node %d: %w", n, err)
	}
	l.http[n-1].CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), exitTimeout)
	defer cancel()
	if err := p.gone(ctx); err != nil {
		return fmt.Errorf("node %d doesn't end: %w", n, err)
	}
	l.setProcess(n, nil)
	return nil
}

// Pause stops node n with SIGSTOP: it holds its connections and does nothing.
func (l *Lab) Pause(n int) error { return l.signal(n, syscall.SIGSTOP) }

// Resume lets a paused node go on.
func (l *Lab) Resume(n int) error { return l.signal(n, syscall.SIGCONT) }

func (l *Lab) signal(n int, s syscall.Signal) error {
	p := l.process(n)
	if p == nil {
		return fmt.Errorf("node %d is down", n)
	}
	return p.signal(s)
}

// Launch starts the process of node n, which is down, and leaves it sealed if it was made so.
func (l *Lab) Launch(n int) error {
	if l.Running(n) {
		return fmt.Errorf("node %d is running", n)
	}
	if n > len(l.StartCmds) || len(l.StartCmds[n-1].Argv) == 0 {
		return fmt.Errorf("nothing is known about how to start node %d", n)
	}
	start := l.StartCmds[n-1]
	command := exec.Command(start.Argv[0], start.Argv[1:]...)
	command.Dir = start.Dir
	command.Env = append(append(environment(), start.Env...), l.env...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C at the terminal is for the test, which then ends its nodes
	if n <= len(l.LogFiles) {
		log, err := os.OpenFile(l.LogFiles[n-1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer log.Close()
		command.Stdout, command.Stderr = log, log
	}
	p, err := spawn(command)
	if err != nil {
		return fmt.Errorf("start node %d: %w", n, err)
	}
	l.setProcess(n, p)
	return nil
}

// Start starts nodes that are down, all at once, opens them, and returns when they serve.
func (l *Lab) Start(ctx context.Context, nodes ...int) error {
	for _, n := range nodes {
		if err := l.Launch(n); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := l.Unseal(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// StartByCommand starts node n as a person would: `conclave local start N`.
func (l *Lab) StartByCommand(ctx context.Context, n int) error {
	command := exec.CommandContext(ctx, l.binary, "local", "start", strconv.Itoa(n), "--dir", l.dir)
	command.Env = append(environment(), l.env...)
	output, err := os.CreateTemp("", "conclave-local-start-")
	if err != nil {
		return err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	command.Stdout, command.Stderr = output, output
	runErr := command.Run()
	// The process is to be ended with the others even if the command gave up on it.
	again, err := Open(filepath.Join(l.dir, "cluster.json"))
	if err == nil {
		l.setProcess(n, again.process(n))
	}
	if runErr != nil {
		said, _ := os.ReadFile(output.Name())
		return fmt.Errorf("conclave local start %d: %w\n%s", n, runErr, said)
	}
	return err
}

// shareEvery is how many polls lie between two rounds of shares: an early one may come before the node knows its seal.
const shareEvery = 25

// Unseal submits shares to node n until it is open, and waits until it serves.
func (l *Lab) Unseal(ctx context.Context, n int) error {
	client := l.Client(n)
	sealed := 0
	err := l.poll(ctx, func() (bool, error) {
		if !l.Running(n) {
			return false, fmt.Errorf("it has ended: %s", l.tail(n))
		}
		health, err := client.Do(ctx, "GET", "sys/health", nil)
		if err != nil {
			return false, nil // not listening yet
		}
		if health.Status == 200 || health.Status == 429 {
			return true, nil
		}
		var said struct{ Sealed bool }
		if health.Decode(&said) != nil || !said.Sealed {
			return false, nil
		}
		if sealed++; sealed%shareEvery == 1 {
			for _, key := range l.UnsealKeys[:min(l.Threshold, len(l.UnsealKeys))] {
				_, _ = client.Do(ctx, "PUT", "sys/unseal", map[string]string{"key": key}) // the next poll sees what came of it
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("open node %d: %w", n, err)
	}
	return nil
}

// WaitServing waits until every node that runs is open and in touch with a quorum.
func (l *Lab) WaitServing(ctx context.Context) error {
	for n := 1; n <= l.Nodes(); n++ {
		if !l.Running(n) {
			continue
		}
		client := l.Client(n)
		err := l.poll(ctx, func() (bool, error) {
			if !l.Running(n) {
				return false, fmt.Errorf("node %d has ended: %s", n, l.tail(n))
			}
			health, err := client.Do(ctx, "GET", "sys/health", nil)
			return err == nil && (health.Status == 200 || health.Status == 429), nil
		})
		if err != nil {
			return fmt.Errorf("node %d doesn't serve: %w", n, err)
		}
	}
	return nil
}

// Leader waits until a running node says that it leads, and returns it.
func (l *Lab) Leader(ctx context.Context) (int, error) {
	leader := 0
	err := l.poll(ctx, func() (bool, error) {
		for n := 1; n <= l.Nodes(); n++ {
			if l.Running(n) && l.leads(ctx, n) {
				leader = n
				return true, nil
			}
		}
		return false, nil
	})
	return leader, err
}

func (l *Lab) leads(ctx context.Context, n int) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answer, err := l.Client(n).Do(ctx, "GET", "sys/leader", nil)
	if err != nil || answer.Status != 200 {
		return false
	}
	var said struct {
		IsSelf bool `json:"is_self"`
	}
	return answer.Decode(&said) == nil && said.IsSelf
}

// StepDown asks node n to give up leading.
func (l *Lab) StepDown(ctx context.Context, n int) error {
	answer, err := l.Client(n).Do(ctx, "PUT", "sys/step-down", nil)
	if err != nil {
		return err
	}
	return answer.Want(204)
}

// poll calls done until it is true, fails, or ctx ends.
func (l *Lab) poll(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("gave up waiting"), ctx.Err())
		case <-ticker.C:
		}
	}
}

// tailSize is how much of a log an error shows.
const tailSize = 2000

// tail is the end of node n's log.
func (l *Lab) tail(n int) string {
	if n > len(l.LogFiles) {
		return "it has no log"
	}
	text, err := os.ReadFile(l.LogFiles[n-1])
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailSize):])
}
