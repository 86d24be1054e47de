package iamtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
)

// errConnectionClosed is what [Server.RoundTripper] returns where a client of the
// network would see the connection close.
var errConnectionClosed = errors.New("iamtest: the server closed the connection")

// RoundTripper passes requests to the server without a network, in the caller's
// goroutine, regardless of the host of their URL. It is for tests in a bubble of
// testing/synctest, where a network would stop time: if Options.Now is [time.Now], the
// bubble's clock is the server's. Start the server outside of the bubble.
func (s *Server) RoundTripper() http.RoundTripper { return inProcess{s} }

type inProcess struct{ s *Server }

// RoundTrip implements [http.RoundTripper].
func (p inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.s.closed.Load() { // as the network says it
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	r := req.Clone(ctx)
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	w := &recorder{header: http.Header{}}
	broken := p.serve(w, r)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case broken && !w.written:
		return nil, errConnectionClosed
	}
	var body io.Reader = &w.body
	if broken {
		body = io.MultiReader(body, brokenReader{})
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(body), ContentLength: -1, Request: req,
	}, nil
}

// serve reports whether the handler broke the connection.
func (p inProcess) serve(w http.ResponseWriter, r *http.Request) (broken bool) {
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler { //nolint:errorlint // a panic value
				panic(v)
			}
			broken = true
		}
	}()
	if r.URL.Scheme+"://"+r.URL.Host == p.s.elsewhere {
		p.s.serveElsewhere(w, r)
	} else {
		p.s.serve(w, r)
	}
	return false
}

// recorder is an http.ResponseWriter that keeps the answer.
type recorder struct {
	header  http.Header
	status  int
	body    bytes.Buffer
	written bool
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status, w.written = status, true }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }
func (w *recorder) Flush()                      {}

// brokenReader is the end of a body that was to be longer.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
