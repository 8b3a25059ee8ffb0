package postgres

import (
	"testing"

	"conclave"
	"conclave/engine/database/driver"
)

// What names a file of this machine is found however it is written.
func TestFilesCanNotBeNamed(t *testing.T) {
	for text, good := range map[string]bool{
		"postgres://{{username}}:{{password}}@h/db?application_name=a": true,
		"host=h user={{username}} password={{password}}":               true,
		"host=h dbname=service user=passfile":                          true,
		"postgres://h/db?passfile=/x":                                  false,
		"postgres://h/db?p%61ssfile=/x":                                false,
		"postgres://h/db?servicefil%65=/x&servic%65=y":                 false,
		"postgres://h/db?%53SLKEY=/x":                                  false,
		"host=h passfile =/x":                                          false,
		"host=h passfile\t= /x":                                        false,
		"host=h\npassfile\n=/x":                                        false,
	} {
		d, err := Open(driver.Settings{URL: text, Username: "u", Password: "p"})
		if (err == nil) != good || err != nil && !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%q: %v, want it taken: %v", text, err, good)
		}
		if err == nil {
			d.Close()
		}
	}
}
