package iamtest

import (
	"net"
	"testing"
	"time"
)

// A server whose second port is taken for a moment starts when it is free.
func TestStartWaitsForItsPorts(t *testing.T) {
	for i, name := range []string{"its own", "that of the other origin"} {
		t.Run(name, func(t *testing.T) {
			srv := Start(t)
			srv.Stop()
			taken, err := net.Listen("tcp4", srv.listeners[i].addr())
			if err != nil {
				t.Fatal(err)
			}
			started := make(chan error, 1)
			go func() { started <- srv.Start() }()
			select {
			case err := <-started:
				t.Errorf("Start returned %v while the port was taken", err)
			case <-time.After(100 * time.Millisecond): // a few tries
			}
			taken.Close()
			select {
			case err := <-started:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("Start hangs")
			}
		})
	}
}
