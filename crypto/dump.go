//go:build unix

package crypto

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// noCoreDump sets the limit of core dumps to nothing, for good.
func noCoreDump() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("crypto: forbid core dumps: %w", err)
	}
	return nil
}
