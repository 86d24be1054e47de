package pivtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNotInstalled is returned when pcscd or the driver of the virtual reader is missing. The packages are pcscd and
// vsmartcard-vpcd on Debian and Ubuntu.
var ErrNotInstalled = errors.New("pivtest: pcscd or vsmartcard-vpcd is not installed (apt-get install pcscd vsmartcard-vpcd)")

func findDaemon() (string, error) {
	for _, name := range []string{"pcscd", "/usr/sbin/pcscd", "/usr/local/sbin/pcscd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNotInstalled
}

// findDriver looks for vpcd where the configuration of its package says, and where distributions put drivers.
func findDriver() (string, error) {
	config, err := os.ReadFile("/etc/reader.conf.d/vpcd")
	if err == nil {
		for line := range bytes.Lines(config) {
			if f := strings.Fields(string(line)); len(f) == 2 && f[0] == "LIBPATH" {
				return f[1], nil
			}
		}
	}
	for _, pattern := range []string{"/usr/lib*/pcsc/drivers/serial/libifdvpcd.so*", "/usr/lib/*/pcsc/drivers/serial/libifdvpcd.so*"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", ErrNotInstalled
}

// readerConfig is a reader.conf(5) with one virtual device, which has two slots.
func readerConfig(name, driver string) []byte {
	return fmt.Appendf(nil, "FRIENDLYNAME %q\nDEVICENAME /dev/null:0x%X\nLIBPATH %s\nCHANNELID 0x%X\n", name, vpcdPort, driver, vpcdPort)
}
