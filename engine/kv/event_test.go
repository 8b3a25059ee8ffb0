package kv

import (
	"slices"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

// told are the events since the last call, as "type path current_version".
func told(t *testing.T, h *enginetest.Harness) []string {
	t.Helper()
	var all []string
	for _, e := range h.TakeEvents() {
		if e.Metadata["modified"] != "true" || e.Metadata["operation"] == "" {
			t.Errorf("event %+v doesn't say what happened", e)
		}
		all = append(all, e.Type+" "+e.Path+" "+e.Metadata["current_version"])
	}
	return all
}

func TestChangesOfVersionedSecretsAreTold(t *testing.T) {
	h := newVersioned(t)
	for _, step := range []struct {
		op     conclave.Operation
		path   string
		fields fields
		want   []string
	}{
		{conclave.Update, "config", fields{"max_versions": 5}, []string{"kv-v2/config-write config "}},
		{conclave.Update, "data/a", fields{"data": fields{"x": 1}}, []string{"kv-v2/data-write data/a 1"}},
		{conclave.Patch, "data/a", fields{"data": fields{"y": 2}}, []string{"kv-v2/data-patch data/a 2"}},
		{conclave.Delete, "data/a", nil, []string{"kv-v2/data-delete data/a 2"}},
		{conclave.Delete, "data/a", nil, nil},
		{conclave.Update, "undelete/a", fields{"versions": []int{2}}, []string{"kv-v2/undelete data/a 2"}},
		{conclave.Update, "delete/a", fields{"versions": []int{1}}, []string{"kv-v2/delete data/a 2"}},
		{conclave.Update, "destroy/a", fields{"versions": []int{1}}, []string{"kv-v2/destroy data/a 2"}},
		{conclave.Update, "destroy/none", fields{"versions": []int{1}}, nil},
		{conclave.Update, "metadata/a", fields{"max_versions": 3}, []string{"kv-v2/metadata-write metadata/a 2"}},
		{conclave.Patch, "metadata/a", fields{"max_versions": nil}, []string{"kv-v2/metadata-patch metadata/a 2"}},
		{conclave.Update, "metadata/a", nil, nil},
		{conclave.Update, "copy/a", fields{"destination": "b"}, []string{"kv-v2/data-write data/b 2"}},
		{conclave.Update, "move/b", fields{"destination": "c"}, []string{"kv-v2/data-write data/c 2", "kv-v2/metadata-delete data/b 2"}},
		{conclave.Delete, "metadata/a", nil, []string{"kv-v2/metadata-delete data/a 2"}},
		{conclave.Delete, "metadata/a", nil, nil},
	} {
		if _, err := h.Do(step.op, step.path, step.fields); err != nil {
			t.Fatalf("%s %s: %v", step.op, step.path, err)
		}
		if got := told(t, h); !slices.Equal(got, step.want) {
			t.Errorf("%s %s: told %q, want %q", step.op, step.path, got, step.want)
		}
	}
	if _, err := h.Do(conclave.Update, "data/c", fields{"data": fields{}, "options": fields{"cas": 9}}); err == nil {
		t.Fatal("a write with another version went through")
	}
	if got := told(t, h); got != nil {
		t.Errorf("a write that failed is told: %q", got)
	}
}

func TestChangesOfPlainSecretsAreTold(t *testing.T) {
	h := enginetest.New(t, plain{})
	for _, step := range []struct {
		op   conclave.Operation
		want []string
	}{
		{conclave.Update, []string{"kv-v1/write a/b "}},
		{conclave.Delete, []string{"kv-v1/delete a/b "}},
		{conclave.Delete, nil},
	} {
		if _, err := h.Do(step.op, "a/b", fields{"x": 1}); err != nil {
			t.Fatal(err)
		}
		if got := told(t, h); !slices.Equal(got, step.want) {
			t.Errorf("%s: told %q, want %q", step.op, got, step.want)
		}
	}
}
