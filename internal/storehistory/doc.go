// Package storehistory renews real sessions with real processes over every Store of this
// repository, disturbs them, and checks what happened. It contains only tests.
//
// A history is one session in one store: some seconds of renewals, reads and logins by
// several processes. Many run at a time in the same processes, so that one SIGKILL or
// SIGSTOP reaches many histories, each at another moment. The parent process only starts
// the others; nothing that it does is part of a history, except the authorization server.
//
// # Disturbances
//
//   - SIGKILL and SIGSTOP, at random moments and at each step of a renewal; some pauses
//     last longer than the lease, and some longer than the lease and the wait of a successor
//   - clocks that are wrong by up to five minutes, different in each process
//   - connections to the authorization server that break before or after it has processed
//     a request, late responses, and 503
//   - connections to the database or etcd that break before a request or after it
//   - slow steps of the file system
//
// # Checks
//
// Each process records the beginning and the end of each operation of its stores, by the
// clock that all processes of a machine share. The authorization server replaces the
// refresh token at each renewal, ends a session when a refresh token is used twice, and
// rejects old proofs. Porcupine then checks that each history is linearizable. The model
// (model_test.go) says:
//
//   - a read returns the newest session
//   - a session is stored only over the one that it came from
//   - a lease has one owner, and so has a lock; only the owner sets a mark
//   - a renewal is made from the refresh token that the server issued last
//   - the server sees a refresh token twice only if the loss was unavoidable: the response
//     to the first request was not stored in time, because the process died or was paused,
//     its connection broke or its store could not be reached, and with a lease the second
//     request began only when the proof of the first had become too old
//
// A lock that ends with its process allows one more loss: the request of a killed process
// can reach the server after that of the next process with the lock. It is counted
// separately.
//
// At the end every session must be renewable, or ended by the server. Stores with known
// mistakes (control_test.go) show that the checks notice them.
//
// # Running it
//
//	go test ./internal/storehistory
//	YCAUTH_HISTORIES=1000 go test -v -timeout 1h -run TestHistories ./internal/storehistory
//
// To add a store, add a row to the table of subjects (subject_test.go). A failure prints a
// command with its seed, and the names of files with the events and a picture of the
// history. The seed determines the disturbances, but not when real processes run.
//
// The race detector would only make the processes slow: they share no memory.
package storehistory
