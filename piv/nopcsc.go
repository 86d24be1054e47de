//go:build !windows && !(cgo && (linux || darwin || freebsd || openbsd))

package piv

// pcsc is the backend of builds without PC/SC.
type pcsc struct{}

func (pcsc) readers() ([]string, error) {
	return nil, becausef(ErrUnsupported, "this program was built without PC/SC, for which cgo is needed: CGO_ENABLED=1")
}

func (p pcsc) connect(string) (token, error) {
	_, err := p.readers()
	return nil, err
}
