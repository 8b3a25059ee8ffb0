package lease

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"conclave"
)

// Limits of jobs.
const (
	// MaxJobs bounds the prefixes of a namespace that are being revoked at once.
	MaxJobs = 64
	// syncTime is how long a job, or a lease, is left to the node that does it while its client waits.
	syncTime = 2 * time.Minute
)

const jobsPath = "lease/jobs"

// Job is a prefix that is being revoked. From when it is stored on, all leases that it covers are over.
type Job struct {
	ID     string `json:"id"`
	Prefix string `json:"prefix"`           // ends in "/"
	Before int64  `json:"before"`           // it covers leases issued until then
	Cursor string `json:"cursor,omitempty"` // the last id below the prefix that was gone through, relative to it
	Sync   bool   `json:"sync,omitempty"`   // somebody waits for it and does it
	Force  bool   `json:"force,omitempty"`
	// Counted jobs are done by whoever has started them, however long that takes: it is as durable as the job.
	Counted bool   `json:"counted,omitempty"`
	Reason  string `json:"reason,omitempty"`
	By      string `json:"by,omitempty"`
}

type jobs struct {
	Jobs []*Job `json:"jobs"`
}

func loadJobs(view conclave.View) (*jobs, error) {
	loaded, err := view.Load(jobsPath, decodeJobs)
	if j, ok := loaded.(*jobs); ok && err == nil {
		return j, nil
	}
	return &jobs{}, err
}

func decodeJobs(value []byte) (any, error) {
	j := &jobs{}
	if err := json.Unmarshal(value, j); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored list of revocations is damaged")
	}
	for _, job := range j.Jobs {
		if job == nil || job.ID == "" || !strings.HasSuffix(job.Prefix, "/") {
			return nil, conclave.Errorf(conclave.Internal, "the stored list of revocations has a damaged entry")
		}
	}
	return j, nil
}

// with stores the list with one job taken out, by its id, and another put in; either may be absent.
func (j *jobs) with(tx conclave.Tx, out string, in *Job) error {
	next := &jobs{}
	for _, job := range j.Jobs {
		if job.ID == out {
			if in != nil {
				next.Jobs = append(next.Jobs, in)
			}
			continue
		}
		next.Jobs = append(next.Jobs, job)
	}
	if out == "" && in != nil {
		next.Jobs = append(next.Jobs, in)
	}
	switch {
	case len(next.Jobs) == 0:
		return tx.Delete(jobsPath)
	case len(next.Jobs) > MaxJobs:
		return conclave.Errorf(conclave.Limited, "%d prefixes are being revoked already: try again later", MaxJobs)
	}
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	return tx.Put(jobsPath, value)
}

func (job *Job) covers(r *Record) bool {
	return r.Issued <= job.Before && strings.HasPrefix(r.ID, job.Prefix)
}

// covered reports whether a prefix that covers the lease is being revoked.
func (r *Record) covered(view conclave.View) (bool, error) {
	j, err := loadJobs(view)
	if err != nil {
		return false, err
	}
	for _, job := range j.Jobs {
		if job.covers(r) {
			return true, nil
		}
	}
	return false, nil
}

// Jobs lists the jobs that are to be worked on by the reaper.
func Jobs(view conclave.View) ([]string, error) {
	j, err := loadJobs(view)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, job := range j.Jobs {
		if job.Counted {
			continue
		}
		if !job.Sync || view.Reached(time.Unix(0, job.Before).Add(syncTime)) {
			ids = append(ids, job.ID)
		}
	}
	return ids, nil
}

// Step queues at most limit leases of a job. It returns their keys, and whether the job is done, and then gone.
func Step(tx conclave.Tx, id string, limit int) (keys []string, done bool, err error) {
	j, err := loadJobs(tx)
	if err != nil {
		return nil, false, err
	}
	var job *Job
	for _, other := range j.Jobs {
		if other.ID == id {
			job = other
		}
	}
	if job == nil {
		return nil, true, nil
	}
	found, more, err := walk(tx, idDir+job.Prefix, job.Cursor, min(max(limit, 1), MaxStep))
	if err != nil {
		return nil, false, err
	}
	next := *job
	for _, name := range found {
		next.Cursor = name
		r, err := load(tx, job.Prefix+name)
		if errors.Is(err, errDamaged) {
			id := job.Prefix + name
			r, err = nil, setAside(tx, keyOf(id), id, idDir+id, err)
		}
		if err != nil {
			return nil, false, err
		}
		if r == nil || !job.covers(r) {
			continue
		}
		var after time.Duration
		if job.Sync {
			after = syncTime
		}
		if err := r.end(tx, Ending{Why: "prefix", Force: job.Force, Reason: job.Reason, By: job.By}, after); err != nil {
			return nil, false, err
		}
		keys = append(keys, r.Key())
	}
	if !more {
		return keys, true, j.with(tx, id, nil)
	}
	return keys, false, j.with(tx, id, &next)
}

// walk returns at most limit names of leaves below dir, relative to it, after the leaf after; more tells that there may be
// others. The order is that of storage.
func walk(view conclave.View, dir, after string, limit int) (found []string, more bool, err error) {
	first, below, deeper := strings.Cut(after, "/")
	if deeper {
		inner, more, err := walk(view, dir+first+"/", below, limit)
		if err != nil {
			return nil, false, err
		}
		for _, name := range inner {
			found = append(found, first+"/"+name)
		}
		if more || len(found) >= limit {
			return found, true, nil
		}
		first += "/"
	}
	for at := first; ; {
		names, err := conclave.Some(view, dir, at, limit-len(found))
		if err != nil {
			return nil, false, err
		}
		if len(names) == 0 {
			return found, false, nil
		}
		for _, name := range names {
			at = name
			if !strings.HasSuffix(name, "/") {
				found = append(found, name)
			} else {
				inner, more, err := walk(view, dir+name, "", limit-len(found))
				if err != nil {
					return nil, false, err
				}
				for _, leaf := range inner {
					found = append(found, name+leaf)
				}
				if more {
					return found, true, nil
				}
			}
			if len(found) >= limit {
				return found, true, nil
			}
		}
	}
}

// StartCounted makes all leases below a prefix be over. Whoever calls it queues them with [Step], and counts them: the reaper
// doesn't.
func StartCounted(tx conclave.Tx, id, prefix, by string) error {
	prefix = strings.Trim(prefix, "/")
	if !validPrefix(prefix) {
		return nil // no lease has it
	}
	j, err := loadJobs(tx)
	if err != nil {
		return err
	}
	return j.with(tx, "", &Job{ID: id, Prefix: prefix + "/", Before: tx.Now().UnixNano(), By: by, Counted: true})
}

// CountBelow counts at most limit leases below a prefix after the one that was counted last, "" for the first. next is where to
// go on, "" if those were all.
func CountBelow(view conclave.View, prefix, after string, limit int) (n int, next string, err error) {
	prefix = strings.Trim(prefix, "/")
	if !validPrefix(prefix) {
		return 0, "", nil
	}
	found, more, err := walk(view, idDir+prefix+"/", after, min(max(limit, 1), MaxStep))
	if err != nil || !more {
		return len(found), "", err
	}
	return len(found), found[len(found)-1], nil
}

// Uncount leaves a job of [StartCounted] to the reaper, if it isn't done.
func Uncount(tx conclave.Tx, id string) error {
	j, err := loadJobs(tx)
	if err != nil {
		return err
	}
	for _, job := range j.Jobs {
		if job.ID == id {
			next := *job
			next.Counted = false
			return j.with(tx, id, &next)
		}
	}
	return nil
}

// Queued is how many leases wait to be ended outside, limit at most.
func Queued(view conclave.View, limit int) (int, error) {
	keys, err := conclave.Some(view, endingDir, "", limit)
	return len(keys), err
}
