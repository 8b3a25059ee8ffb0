// Package worker has engines do the work that is due: rotation, tidying. It runs on the leader. Work is claimed and begun in
// one transaction, done outside of any, and finished in another, so that a crash between the steps has it begun again, and
// nobody does it twice at once. Mounts have their own limit of what is done at a time: one whose outside world doesn't answer
// holds up nobody else's work.
package worker
