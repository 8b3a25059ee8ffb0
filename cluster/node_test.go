package cluster

import (
	"context"
	"testing"

	"conclave/fsm"
)

func TestThreeNodesFormAndCommitFromEach(t *testing.T) {
	_, nodes := three(t)
	for i, n := range nodes {
		o := mustCommit(t, n, func() *fsm.Transaction { return writing(n, uint64(i), "value of "+n.id) })
		for _, other := range nodes {
			if err := other.state.WaitApplied(context.Background(), o.Index); err != nil {
				t.Fatal(err)
			}
			v := other.state.View()
			_, value, err := v.Get(recordKey('r', uint64(i)))
			if err != nil || string(value) != "value of "+n.id {
				t.Errorf("%s has %q, %v for what %s wrote", other.id, value, err, n.id)
			}
			v.Release()
		}
		if o := mustCommit(t, n, func() *fsm.Transaction { return reading(n, uint64(i)) }); o.Seq == 0 {
			t.Errorf("read-only commit on %s has no sequence: %+v", n.id, o)
		}
	}
	id := nodes[0].ClusterID()
	for _, n := range nodes {
		if n.ClusterID() != id || id == "" {
			t.Errorf("%s is of cluster %q, a of %q", n.id, n.ClusterID(), id)
		}
	}
}
