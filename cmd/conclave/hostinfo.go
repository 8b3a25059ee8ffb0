package main

import (
	"context"
	"os"
	"runtime"
	"time"

	"conclave"
)

type hostOutput struct {
	Timestamp time.Time         `json:"timestamp" doc:"By this machine's clock."`
	Host      map[string]string `json:"host" doc:"Name and platform."`
	CPU       []map[string]any  `json:"cpu" doc:"Processors."`
}

// hostInfoRoute says no more than an operator who compares machines needs.
func hostInfoRoute() conclave.Route {
	r := conclave.ReadRoute(conclave.Read, "host-info", "The machine that this node runs on.",
		func(ctx context.Context, _ conclave.View, _ *conclave.None) (*hostOutput, error) {
			found, _ := conclave.Prepared[*hostOutput](ctx)
			return found, nil
		}).With(conclave.Sudo)
	r.Prepare = func(context.Context, *conclave.Request, any) (any, error) {
		name, err := os.Hostname()
		if err != nil {
			return nil, conclave.Errorf(conclave.Internal, "the host's name can't be read")
		}
		return &hostOutput{Timestamp: time.Now().UTC(),
			Host: map[string]string{"hostname": name, "os": runtime.GOOS, "kernelArch": runtime.GOARCH},
			CPU:  []map[string]any{{"cores": runtime.NumCPU()}}}, nil
	}
	return r
}
