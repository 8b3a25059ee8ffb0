package rotate

import (
	"time"

	"conclave"
)

var _ conclave.Emergency = (*Engine)(nil)

// Exposed lists entries. Who has read a value isn't known.
func (e *Engine) Exposed(view conclave.View, exposure conclave.Exposure, after string, limit int) ([]conclave.Exposed, string, error) {
	if exposure.EntityID != "" || exposure.Accessor != "" {
		return nil, "", nil
	}
	names, err := view.List(entries, after, limit)
	if err != nil {
		return nil, "", err
	}
	var items []conclave.Exposed
	for _, name := range names {
		if exposure.Covers("creds/" + name) {
			items = append(items, conclave.Exposed{Kind: "rotated secret", Name: name})
		}
	}
	if len(names) < limit {
		return items, "", nil
	}
	return items, names[len(names)-1], nil
}

// TakeBack has a new value handed over at once, as the route emergency does. A hand-over that is under way ends first.
func (e *Engine) TakeBack(tx conclave.Tx, item conclave.Exposed) error {
	en, st, err := load(tx, item.Name)
	if conclave.Is(err, conclave.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	st.expire(tx, en)
	if err := e.makePending(tx, st, en, causeOf(tx, emergency, "everything of the mount is revoked")); err != nil {
		return err
	}
	st.Retry = time.Time{}
	return st.settle(tx, item.Name, en)
}
