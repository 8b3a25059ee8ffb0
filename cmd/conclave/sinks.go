package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"conclave"
	"conclave/audit"
	"conclave/cluster"
)

// callWritten asks a node how far its audit devices have come. It works sealed.
const callWritten = "audit.written"

const (
	// devicePatience is how long pruning waits for devices that are about to have written what is to be dropped.
	devicePatience = 5 * time.Second
	// nodePatience is how long it waits for the answer of one node.
	nodePatience = 5 * time.Second
)

// writtenQuery and writtenAnswer are the bodies of callWritten. Both have an element for each device.
type (
	writtenQuery  struct{ Files []string }
	writtenAnswer struct{ Devices []written }
	written       struct {
		Records uint64 // that are safely in the file
		Reason  string // why that isn't known
	}
)

// answerWritten answers callWritten from the cursors beside the files.
func (d *daemon) answerWritten(_ context.Context, _ cluster.Member, body []byte) ([]byte, error) {
	var query writtenQuery
	if json.Unmarshal(body, &query) != nil || len(query.Files) > audit.MaxDevices {
		return nil, conclave.Errorf(conclave.Invalid, "malformed call")
	}
	answer := writtenAnswer{Devices: make([]written, len(query.Files))}
	for i, file := range query.Files {
		records, err := d.folders.Written(file)
		answer.Devices[i].Records = records
		if known, ok := errors.AsType[*conclave.Error](err); ok {
			answer.Devices[i].Reason = known.Error()
		} else if err != nil {
			d.log.Warn("an audit device's cursor can't be read", "file", file, "error", err)
			answer.Devices[i].Reason = "its cursor can't be read"
		}
	}
	return json.Marshal(answer)
}

// awaitDevices returns when every enabled device has written an epoch on every node, or says which hasn't. What isn't a
// closed epoch concerns no device.
func (d *daemon) awaitDevices(ctx context.Context, epoch uint64) error {
	end, ok := d.state.Audit().EpochEnd(epoch)
	if !ok {
		return nil
	}
	tx, err := d.store.Begin()
	if err != nil {
		return err
	}
	devices, err := audit.Devices(tx.System())
	tx.Close()
	if err != nil || len(devices) == 0 {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, devicePatience)
	defer cancel()
	for {
		err := d.checkDevices(ctx, devices, end)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-patience.Done():
			return err
		case <-time.After(devicePoll):
		}
	}
}

// checkDevices reports the first device that, on some node, has not written the records before end.
func (d *daemon) checkDevices(ctx context.Context, devices []audit.Device, end uint64) error {
	query := writtenQuery{}
	for _, device := range devices {
		query.Files = append(query.Files, device.FilePath())
	}
	body, err := json.Marshal(query)
	if err != nil {
		return err
	}
	const advice = "nothing was dropped. See to it, or disable the device, or repeat with force"
	for _, member := range d.cluster.Members() {
		answer, err := d.askWritten(ctx, member.NodeID, body, len(devices))
		if err != nil {
			return conclave.Errorf(conclave.Invalid, "node %s can't be asked whether its audit devices have written the log up to record %d: "+advice, member.NodeID, end)
		}
		for i, device := range devices {
			at := answer.Devices[i]
			if at.Reason == "" && at.Records >= end {
				continue
			}
			where := at.Reason
			if where == "" {
				where = fmt.Sprintf("it has written %d", at.Records)
			}
			return conclave.Errorf(conclave.Invalid, "the audit device %s/ has not written the first %d records on node %s: %s: "+advice, device.Path, end, member.NodeID, where)
		}
	}
	return nil
}

func (d *daemon) askWritten(ctx context.Context, node string, body []byte, devices int) (answer writtenAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	reply, err := d.cluster.Call(ctx, node, callWritten, body)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(reply, &answer); err != nil || len(answer.Devices) != devices {
		return answer, errors.New("malformed answer")
	}
	return answer, nil
}
