package crypto

// WrapRootKey seals the root key with the unseal key, both of KeySize bytes, bound to aad: what the seal blob says beside it. The
// result has KeySize+Overhead bytes.
func WrapRootKey(unsealKey, root []byte, aad []byte) ([]byte, error) {
	wrap, err := NewAEAD(unsealKey)
	if err != nil {
		return nil, err
	}
	if _, err := NewAEAD(root); err != nil {
		return nil, err
	}
	return wrap.Seal(nil, root, wrapAdditional(aad)), nil
}

// UnwrapRootKey gives back the root key, or ErrOpen. The caller wipes it.
func UnwrapRootKey(unsealKey, box []byte, aad []byte) ([]byte, error) {
	wrap, err := NewAEAD(unsealKey)
	if err != nil || len(box) != KeySize+Overhead {
		return nil, ErrOpen
	}
	return wrap.Open(nil, box, wrapAdditional(aad))
}

func wrapAdditional(aad []byte) []byte {
	return appendField(appendField(make([]byte, 0, 8+len("root key")+len(aad)), "root key"), aad)
}
