package conclave

// sampler is a View that lists a part of a directory at a cost that doesn't grow with the directory.
type sampler interface {
	Some(dir, after string, limit int) ([]string, error)
}

// Some returns at most limit names directly under dir, after the name after, in an order that stays the same and means
// nothing: for work that goes through what may be a very large directory step by step. That a directory is empty is
// noted as List notes it; otherwise only the names that were returned are. limit must be positive.
func Some(view View, dir, after string, limit int) ([]string, error) {
	if s, ok := view.(sampler); ok {
		return s.Some(dir, after, limit)
	}
	return view.List(dir, after, limit)
}
