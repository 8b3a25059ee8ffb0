package schedule

import (
	"context"
	"strings"
	"time"

	"conclave"
)

// maxShown is how many failures one answer shows.
const maxShown = 200

// Routes is the one below sys/work.
func Routes() []conclave.Route {
	return []conclave.Route{conclave.ReadRoute(conclave.Read, "work",
		"Show work of engines that could be neither begun nor finished, up to 200. It is begun again after longer and longer pauses.", showFailed).With(conclave.Sudo)}
}

type failedOutput struct {
	Mount   string `json:"mount_uuid" doc:"The mount."`
	Name    string `json:"name" doc:"What the engine calls the work."`
	Failed  int    `json:"failed" doc:"Attempts in a row."`
	Error   string `json:"error" doc:"Why the last one failed."`
	Next    string `json:"next_attempt" doc:"When it is begun again, or counts as lost if it is being done."`
	Claimed bool   `json:"being_done" doc:"Whether somebody does it just now."`
}

type workOutput struct {
	Failed []failedOutput `json:"failed" doc:"The work, by mount."`
}

func showFailed(_ context.Context, view conclave.View, _ *conclave.None) (*workOutput, error) {
	mounts, err := dirs(view, failedDir)
	if err != nil {
		return nil, err
	}
	out := &workOutput{Failed: []failedOutput{}}
	for _, mount := range mounts {
		if len(out.Failed) >= maxShown {
			break
		}
		keys, err := conclave.Some(view, failedDir+mount+"/", "", maxShown-len(out.Failed))
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			a, err := load(view, mount, strings.TrimSuffix(key, "/"))
			if err != nil {
				return nil, err
			}
			if a != nil {
				out.Failed = append(out.Failed, failedOutput{mount, a.Name, a.Failed, a.Error, time.Unix(0, a.At).UTC().Format(time.RFC3339Nano), a.Claimed})
			}
		}
	}
	return out, nil
}
