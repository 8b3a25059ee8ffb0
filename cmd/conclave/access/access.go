// Package access is the commands for questions about policies: who may do what, why not, and what a change would change.
package access
