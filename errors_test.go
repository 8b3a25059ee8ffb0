package conclave

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
)

func TestKindsAreFoundThroughWrapping(t *testing.T) {
	refused := Errorf(Denied, "no: %w", io.EOF)
	wrapped := fmt.Errorf("while reading: %w", refused)
	for _, err := range []error{refused, wrapped, errors.Join(io.ErrUnexpectedEOF, wrapped)} {
		if KindOf(err) != Denied || !Is(err, Denied) || Is(err, NotFound) || !errors.Is(err, io.EOF) {
			t.Errorf("%v: kind %s", err, KindOf(err))
		}
	}
	if KindOf(io.EOF) != Internal || Is(io.EOF, Internal) || Is(nil, Internal) {
		t.Error("an error of no kind is taken for an Error")
	}
	if refused.Error() != "no: EOF" || Errorf(Invalid, "bad %d", 1).Unwrap() != nil {
		t.Errorf("message %q", refused.Error())
	}
	if got := (&Error{Kind: NotFound}).Error(); got != "not found" {
		t.Errorf("an error without a message says %q", got)
	}
}

func TestEveryKindAndOperationHasAName(t *testing.T) {
	names := map[string]bool{}
	for kind := Internal; kind <= Unknown; kind++ {
		names[kind.String()] = true
	}
	if len(names) != int(Unknown)+1 || Kind(200).String() != "internal error" {
		t.Errorf("names are %v", names)
	}
	for op := Read; op <= Scan; op++ {
		if op.String() == "" {
			t.Errorf("operation %d has no name", op)
		}
	}
	if Operation(0).String()+Operation(200).String() != "" {
		t.Error("what is no operation has a name")
	}
}

func TestSecretsArePrintedByNobody(t *testing.T) {
	const value = "hvs.canary"
	secret := NewSecret(value)
	holder := struct {
		Secret  Secret
		Pointer *Secret
		Map     map[Secret]Secret
		private Secret
	}{secret, &secret, map[Secret]Secret{secret: secret}, secret}
	var printed []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%10s"} {
		printed = append(printed, fmt.Sprintf(verb, holder), fmt.Sprintf(verb, &holder), fmt.Sprintf(verb, secret), fmt.Sprintf(verb, &secret), fmt.Sprintf(verb, holder.Map), fmt.Sprintf(verb, []Secret{secret}))
	}
	text, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "secret", secret, "map", holder.Map)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "secret", secret, "map", holder.Map)
	printed = append(printed, string(text), log.String(), secret.String(), Errorf(Invalid, "bad %s", secret).Error())
	for _, text := range printed {
		if strings.Contains(text, "canary") || strings.Contains(text, fmt.Sprintf("%x", value)) {
			t.Errorf("the secret shows in %q", text)
		}
	}
	if secret.Reveal() != value {
		t.Errorf("Reveal = %q", secret.Reveal())
	}
}

func TestSecretsAreComparedByValue(t *testing.T) {
	a, b, empty := NewSecret("a"), NewSecret("b"), Secret{}
	if !a.Equal(NewSecret("a")) || a.Equal(b) || a.Equal(NewSecret("aa")) || a.Equal(empty) || !empty.Equal(NewSecret("")) {
		t.Error("Equal is wrong")
	}
	if a.Empty() || !empty.Empty() {
		t.Error("Empty is wrong")
	}
}
