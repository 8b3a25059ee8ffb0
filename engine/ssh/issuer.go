package ssh

import (
	"encoding/json"

	"golang.org/x/crypto/ssh"

	"conclave"
)

// issuer is a certificate authority. What is loaded is shared and must not be changed.
type issuer struct {
	ID         string `json:"id"`
	Name       string `json:"name,omitempty"`
	PublicKey  string `json:"public_key"` // a line of authorized_keys, with its newline
	PrivateKey string `json:"private_key"`

	signer ssh.AlgorithmSigner
}

func decodeIssuer(value []byte) (any, error) {
	i := &issuer{}
	if err := json.Unmarshal(value, i); err != nil || i.ID == "" || i.PublicKey == "" {
		return nil, damaged("an issuer")
	}
	signer, err := ssh.ParsePrivateKey([]byte(i.PrivateKey))
	if err != nil {
		return nil, damaged("an issuer")
	}
	able, ok := signer.(ssh.AlgorithmSigner)
	if !ok {
		return nil, damaged("an issuer")
	}
	i.signer = able
	return i, nil
}

func issuerAt(view conclave.View, id string) (*issuer, error) {
	if !validName(id) {
		return nil, nil
	}
	loaded, err := view.Load(issuersDir+id, decodeIssuer)
	i, _ := loaded.(*issuer)
	return i, err
}

// defaultRef names the default issuer, whichever that is.
const defaultRef = "default"

// issuerBy finds an issuer by its id, its name or "default"; nil if there is none.
func issuerBy(view conclave.View, ref string) (*issuer, error) {
	if ref == defaultRef || ref == "" {
		id, err := view.Get(defaultPath)
		if err != nil || id == nil {
			return nil, err
		}
		return issuerAt(view, string(id))
	}
	if !validName(ref) {
		return nil, nil
	}
	id, err := view.Get(namesDir + ref)
	if err != nil {
		return nil, err
	}
	if id != nil {
		ref = string(id)
	}
	return issuerAt(view, ref)
}

func (i *issuer) save(tx conclave.Tx) error {
	value, err := json.Marshal(i)
	if err != nil {
		return conclave.Errorf(conclave.Internal, "encode an issuer: %w", err)
	}
	return tx.Put(issuersDir+i.ID, value)
}

// rename takes a name for the issuer, which must be nobody else's; "" is none.
func (i *issuer) rename(tx conclave.Tx, name string) error {
	if name == i.Name {
		return nil
	}
	if name != "" {
		if !validName(name) || name == defaultRef || isID(name) {
			return conclave.Errorf(conclave.Invalid, "invalid issuer name: letters, digits, and between them dashes, dots and underscores; not %q and not an identifier", defaultRef)
		}
		taken, err := tx.Get(namesDir + name)
		if err != nil {
			return err
		}
		if taken != nil {
			return conclave.Errorf(conclave.Invalid, "issuer name already in use")
		}
		if err := tx.Put(namesDir+name, []byte(i.ID)); err != nil {
			return err
		}
	}
	if i.Name != "" {
		if err := tx.Delete(namesDir + i.Name); err != nil {
			return err
		}
	}
	i.Name = name
	return nil
}

// remove deletes the issuer, and reports whether it was the default one.
func (i *issuer) remove(tx conclave.Tx) (wasDefault bool, err error) {
	if i.Name != "" {
		if err := tx.Delete(namesDir + i.Name); err != nil {
			return false, err
		}
	}
	id, err := tx.Get(defaultPath)
	if err != nil {
		return false, err
	}
	if string(id) == i.ID {
		wasDefault = true
		if err := tx.Delete(defaultPath); err != nil {
			return false, err
		}
	}
	return wasDefault, tx.Delete(issuersDir + i.ID)
}

// isID reports whether a text has the form of an identifier, which no name may have.
func isID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i := range len(text) {
		c := text[i]
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}
