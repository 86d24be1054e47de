// Package storehistory renews real sessions with real processes over every Store of this
// repository, disturbs them, and checks what happened. It contains only tests.
//
// A history is one session with one key of one store: some seconds of renewals, reads and
// logins by several processes. Many run at a time in the same processes, so that one SIGKILL or SIGSTOP
// meets many histories, each at another moment.
//
// # Disturbances
//
//   - SIGKILL and SIGSTOP, at random instants and at each step of a renewal; some pauses last
//     longer than the lease, and some longer than the lease and the life of a proof
//   - clocks that are wrong by up to five minutes, another one in each process
//   - connections to the authorization server that break before or after it has processed a
//     request, responses that are late, and 503
//   - connections to the database that break before a statement or after it
//   - steps of the file system that are slow
//
// # Checks
//
// Each process writes down the beginning and the end of each operation of its stores, with the clock that all
// processes of a machine share. The authorization server is part of the test: it
// replaces the refresh token at each renewal, ends a session when a refresh token is used
// twice, and judges the age of proofs. Porcupine then checks that each history is
// linearizable. In the model (model_test.go) a read returns the newest session, a
// session replaces only the one it came from, a lease has one owner, a renewal starts from the
// refresh token that the server has issued last, and the server sees a
// refresh token twice only if the loss was unavoidable: the response of the request before
// was never stored, because its process died or was paused, its connection broke or the
// store could not be reached, and whoever sent the token again had waited as long as proofs live.
//
// Stores with known mistakes (control_test.go) show that the checks find them.
//
// # Running it
//
//	go test ./internal/storehistory                       # a few histories of each store
//	YCAUTH_HISTORIES=1000 go test -v -timeout 1h -run TestHistories ./internal/storehistory
//
// Another store is one more row in the table of subjects (subject_test.go). A failure prints
// a command with its seed, and the names of files with pictures of
// the histories that were wrong. The seed determines the disturbances; what real processes make of them
// differs a little every time.
package storehistory
