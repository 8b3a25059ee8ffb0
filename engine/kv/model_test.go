package kv

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

// model is what a secret should be: as plain as it can be said.
type model struct {
	keep    int
	current int
	data    map[int]string // version kept and not destroyed → its value
	deleted map[int]bool
}

func (m *model) clone() *model {
	return &model{m.keep, m.current, maps.Clone(m.data), maps.Clone(m.deleted)}
}

// step does one thing at random to the secret at path, in the engine and in the models.
func step(h *enginetest.Harness, random *rand.Rand, path string, models map[string]*model) string {
	m := models[path]
	if m == nil || random.IntN(3) == 0 {
		if m == nil {
			m = &model{keep: defaultVersions, data: map[int]string{}, deleted: map[int]bool{}}
			models[path] = m
		}
		m.current++
		value := fmt.Sprint(path, m.current, strings.Repeat("x", []int{0, 10, 400, 1500, inlineBudget, 3 * inlineBudget}[random.IntN(6)]))
		m.data[m.current] = value
		for n := range m.data {
			if n <= m.current-m.keep {
				delete(m.data, n)
			}
		}
		put(h, path, value)
		return "put " + path
	}
	n := 1 + random.IntN(m.current+1)
	one := fields{"versions": []int{n}}
	switch random.IntN(8) {
	case 0:
		h.Data(conclave.Delete, "data/"+path, nil)
		m.deleted[m.current] = true
		return "delete " + path
	case 1:
		h.Data(conclave.Update, "delete/"+path, one)
		if n <= m.current {
			m.deleted[n] = true
		}
		return fmt.Sprint("delete ", path, n)
	case 2:
		h.Data(conclave.Update, "undelete/"+path, one)
		delete(m.deleted, n)
		return fmt.Sprint("undelete ", path, n)
	case 3:
		h.Data(conclave.Update, "destroy/"+path, one)
		delete(m.data, n)
		return fmt.Sprint("destroy ", path, n)
	case 4:
		m.keep = 1 + random.IntN(12)
		h.Data(conclave.Update, "metadata/"+path, fields{"max_versions": m.keep})
		return fmt.Sprint("keep ", path, m.keep)
	case 5:
		h.Data(conclave.Delete, "metadata/"+path, nil)
		delete(models, path)
		return "remove " + path
	}
	to := string(rune('A' + random.IntN(3)))
	if to == path {
		return "nothing"
	}
	verb := []string{"copy/", "move/"}[random.IntN(2)]
	h.Data(conclave.Update, verb+path, fields{"destination": to, "force": "true"})
	models[to] = m.clone()
	if verb == "move/" {
		delete(models, path)
	}
	return verb + path + " " + to
}

func TestAnyHistoryReadsAsItShould(t *testing.T) {
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 7))
		h := newVersioned(t, enginetest.Fast())
		models := map[string]*model{}
		var history []string
		for range 300 {
			path := []string{"a", "a/b", "c"}[random.IntN(3)]
			if keys := slices.Sorted(maps.Keys(models)); len(keys) > 0 && random.IntN(2) == 0 {
				path = keys[random.IntN(len(keys))]
			}
			history = append(history, step(h, random, path, models))
			for path, m := range models {
				for n := 1; n <= m.current; n++ {
					checkVersion(t, h, path, n, m)
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d after %q", seed, history)
			}
		}
		for path := range models {
			h.Data(conclave.Delete, "metadata/"+path, nil)
		}
		if left := len(h.Stored()); left > 0 {
			t.Fatalf("seed %d: %d values are left when all secrets are removed", seed, left)
		}
	}
}

func checkVersion(t *testing.T, h *enginetest.Harness, path string, n int, m *model) {
	t.Helper()
	want, kept := m.data[n]
	readable := kept && !m.deleted[n]
	response, err := h.Do(conclave.Read, "data/"+path, fields{"version": n})
	switch {
	case readable != (err == nil):
		t.Errorf("version %d of %s: %v, readable should be %v", n, path, err, readable)
	case readable && string(response.Data.(*dataOut).Data) != fmt.Sprintf(`{"x":%q}`, want):
		t.Errorf("version %d of %s is %.40s, want %.40s", n, path, response.Data.(*dataOut).Data, want)
	}
}
