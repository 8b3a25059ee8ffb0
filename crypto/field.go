package crypto

// The field GF(2^8) with the polynomial x^8+x^4+x^3+x+1 (0x11b), as in AES and in Vault's Shamir. Addition is XOR. There are no tables
// and no branches on values, since a table look-up shows the secret to whoever shares the cache.

// fieldMul is the product of a and b.
func fieldMul(a, b byte) byte {
	var p byte
	for range 8 {
		p ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
		b >>= 1
	}
	return p
}

// fieldInverse is a^254, which is 1/a, and 0 for 0.
func fieldInverse(a byte) byte {
	p := byte(1)
	for range 7 {
		a = fieldMul(a, a) // a^2, a^4, … a^128: the exponents add up to 254
		p = fieldMul(p, a)
	}
	return p
}
