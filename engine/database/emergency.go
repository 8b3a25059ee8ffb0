package database

import "conclave"

var _ conclave.Emergency = (*Engine)(nil)

// Exposed lists static roles. Who has read a password isn't known.
func (e *Engine) Exposed(view conclave.View, exposure conclave.Exposure, after string, limit int) ([]conclave.Exposed, string, error) {
	if exposure.EntityID != "" || exposure.Accessor != "" {
		return nil, "", nil
	}
	names, err := view.List(staticDir, after, limit)
	if err != nil {
		return nil, "", err
	}
	var items []conclave.Exposed
	for _, name := range names {
		if exposure.Covers("static-creds/" + name) {
			items = append(items, conclave.Exposed{Kind: "static role", Name: name})
		}
	}
	if len(names) < limit {
		return items, "", nil
	}
	return items, names[len(names)-1], nil
}

// TakeBack has the role's password changed at once, whatever its schedule.
func (e *Engine) TakeBack(tx conclave.Tx, item conclave.Exposed) error {
	s, err := loadStatic(tx, staticDir+item.Name)
	if err != nil || s == nil {
		return err
	}
	if _, err := s.intend(tx, item.Name, staticDir+item.Name); err != nil {
		return err
	}
	return tx.Wake(staticWork+item.Name, tx.Now())
}
