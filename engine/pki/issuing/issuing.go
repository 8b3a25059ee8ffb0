// Package issuing turns what is asked for, by fields or a CSR, into a certificate within the limits of a role. It is pure:
// it neither stores nor reads anything, and has the time and the serial number from its caller.
//
// Nothing of a CSR gets into a certificate that the role's rules haven't seen: names are checked one by one in the form in
// which they are signed, extensions of the CSR are not copied but for requests that are signed verbatim, and even these
// can't have a certificate become an authority's. An address is never a DNS name.
package issuing
