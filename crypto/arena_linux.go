package crypto

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// keepPrivate leaves memory out of core dumps and wipes it in a forked child.
func keepPrivate(memory []byte) error {
	if err := unix.Madvise(memory, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("crypto: keep locked memory out of core dumps: %w", err)
	}
	if err := unix.Madvise(memory, unix.MADV_WIPEONFORK); err != nil {
		return fmt.Errorf("crypto: wipe locked memory on fork: %w", err)
	}
	return nil
}

// Harden makes this process leave no core dump and, by clearing its dumpable flag, keeps processes of the same user from attaching to
// it or reading its memory. It cannot be undone. /proc/self belongs to root from then on.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("crypto: make the process non-dumpable: %w", err)
	}
	return noCoreDump()
}
