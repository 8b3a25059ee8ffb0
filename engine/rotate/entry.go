package rotate

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"conclave"
	"conclave/engine/rotate/handover"
	"conclave/internal/period"
	"conclave/password"
)

// shown are an entry's settings that can be read.
type shown struct {
	PasswordPolicy   string            `json:"password_policy" doc:"Password policy of the namespace that values are made by."`
	Length           int               `json:"length" doc:"Without a policy: characters of a value, letters and digits, 4 to 100; 0 for the default policy."`
	RotationPeriod   conclave.Seconds  `json:"rotation_period" doc:"Rotate this long after the last rotation, a minute at least; 0 for never. Not with rotation_schedule."`
	RotationSchedule string            `json:"rotation_schedule" doc:"Rotate when this cron expression says, in UTC: minute, hour, day of month, month, day of week."`
	RotationWindow   conclave.Seconds  `json:"rotation_window" doc:"For how long after the scheduled time attempts are made, an hour at least; 0 for as long as it takes."`
	GracePeriod      conclave.Seconds  `json:"grace_period" doc:"For how long the value before stays readable after a rotation; 0: not at all."`
	Verify           bool              `json:"verify" doc:"Have the source show that a value works before it becomes current. On by default."`
	Retire           bool              `json:"retire" doc:"Tell the source to end a value that is no longer readable."`
	SendCurrent      bool              `json:"send_current" doc:"Tell the source the current value together with the new one, for sources that ask for it."`
	Timeout          conclave.Seconds  `json:"timeout" doc:"Time for one call to the source, 1 to 15 seconds; 10 by default."`
	WebhookURL       string            `json:"webhook_url" doc:"Where calls are posted, https:// only. Not with command."`
	WebhookCA        string            `json:"webhook_ca_pem" doc:"Authorities that alone may have issued the webhook's certificate, PEM; empty for the system's."`
	Command          string            `json:"command" doc:"Program that does calls: an absolute path in a directory that the node's configuration allows. Each node needs it."`
	Arguments        []string          `json:"arguments" doc:"Arguments of the command, always the same. The call comes by standard input."`
	Metadata         map[string]string `json:"metadata" doc:"Told to the source and to readers: a user's name, a host. Not secret."`
}

// entry is stored as JSON. Its secret is plain here, since storage is encrypted.
type entry struct {
	shown
	WebhookKey string `json:"webhook_key"`
}

type entryIn struct {
	Name string `path:"name" doc:"The entry's name."`
	shown
	WebhookKey conclave.Secret `json:"webhook_key" doc:"Key that calls to the webhook are signed with, 32 to 1024 bytes; never shown."`
	Value      conclave.Secret `json:"value" doc:"For a new entry: the value that its source has now, instead of making one."`
	Fields     map[string]any  `json:"*"`
}

type nameIn struct {
	Name string `path:"name" doc:"The entry's name."`
}

// loadEntry returns nil if there is none. What it returns is shared and must not be changed.
func loadEntry(view conclave.View, name string) (*entry, error) {
	if checkName(name) != nil {
		return nil, nil
	}
	found, err := view.Load(entries+name, decodeEntry)
	en, _ := found.(*entry)
	return en, err
}

func decodeEntry(value []byte) (any, error) {
	en := &entry{}
	if json.Unmarshal(value, en) != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored settings of an entry are damaged")
	}
	return en, nil
}

// load returns an entry with its state, which may be changed; NotFound if there is none.
func load(view conclave.View, name string) (*entry, *state, error) {
	return find(view, name, loadState)
}

// look is load for those who change nothing: the state is shared.
func look(view conclave.View, name string) (*entry, *state, error) {
	return find(view, name, lookState)
}

func find(view conclave.View, name string, stateOf func(conclave.View, string) (*state, error)) (*entry, *state, error) {
	en, err := loadEntry(view, name)
	if err != nil {
		return nil, nil, err
	}
	if en == nil {
		return nil, nil, notFound()
	}
	st, err := stateOf(view, name)
	if err == nil && st == nil {
		err = notFound()
	}
	return en, st, err
}

func readEntry(_ context.Context, view conclave.View, in *nameIn) (*shown, error) {
	en, err := loadEntry(view, in.Name)
	if err != nil {
		return nil, err
	}
	if en == nil {
		return nil, notFound()
	}
	return &en.shown, nil
}

func (e *Engine) writeEntry(_ context.Context, tx conclave.Tx, in *entryIn) (*conclave.None, error) {
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	stored, err := loadEntry(tx, in.Name)
	if err != nil {
		return nil, err
	}
	next := entry{shown: shown{Verify: true, Timeout: 10}}
	if stored != nil {
		next = *stored
		next.Metadata = nil // a map that is merged into would be the shared one
		if _, given := in.Fields["metadata"]; !given {
			next.Metadata = maps.Clone(stored.Metadata)
		}
	}
	next.change(in)
	fields := maps.Clone(in.Fields)
	delete(fields, "value")
	if err := conclave.Merge(&next, fields); err != nil {
		return nil, err
	}
	if err := next.check(tx, e.settings.Programs, stored); err != nil {
		return nil, err
	}
	value, err := json.Marshal(next)
	if err != nil {
		return nil, err
	}
	if err := tx.Put(entries+in.Name, value); err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, begin(tx, in, &next)
	}
	if !in.Value.Empty() {
		return nil, conclave.Errorf(conclave.Invalid, "value is for new entries only")
	}
	return nil, replan(tx, in.Name, &next, stored)
}

// change takes away the webhook if a command is given in its place, and the other way round.
func (en *entry) change(in *entryIn) {
	if in.Command != "" && in.WebhookURL == "" {
		en.WebhookURL, en.WebhookCA, en.WebhookKey = "", "", ""
	}
	if in.WebhookURL != "" && in.Command == "" {
		en.Command, en.Arguments = "", nil
	}
}

// begin makes the state of a new entry.
func begin(tx conclave.Tx, in *entryIn, en *entry) error {
	st := &state{}
	if in.Value.Empty() {
		return st.settle(tx, in.Name, en) // no value: the first is made at once
	}
	value := in.Value.Reveal()
	if len(value) > maxValue || !isText(value) {
		return conclave.Errorf(conclave.Invalid, "value must be text of at most %d bytes without control characters", maxValue)
	}
	now := tx.Now().UTC()
	st.Last, st.Current = 1, &held{Version: 1, Value: value, Since: now}
	st.plan(en, now)
	c := causeOf(tx, brought, "")
	if err := addLine(tx, in.Name, line{Version: 1, What: c.What, At: now, Who: c.Who, Entity: c.Entity, Request: c.Request}); err != nil {
		return err
	}
	return st.settle(tx, in.Name, en)
}

func isText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r == unicode.ReplacementChar || unicode.IsControl(r) })
}

// replan has a changed schedule begin now. What a change makes possible is tried at once.
func replan(tx conclave.Tx, name string, en, was *entry) error {
	st, err := loadState(tx, name)
	if err != nil || st == nil {
		return err
	}
	if en.RotationPeriod != was.RotationPeriod || en.RotationSchedule != was.RotationSchedule {
		st.plan(en, tx.Now().UTC())
	}
	st.Retry = time.Time{}
	if !en.Retire {
		st.Retiring = nil
	}
	return st.settle(tx, name, en)
}

func deleteEntry(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	en, err := loadEntry(tx, in.Name)
	if err != nil || en == nil {
		return nil, err
	}
	for _, folder := range []string{entries, states, histories} {
		if err := tx.Delete(folder + in.Name); err != nil {
			return nil, err
		}
	}
	if err := tx.Wake(in.Name, time.Time{}); err != nil {
		return nil, err
	}
	return nil, tx.Emit(conclave.Event{Type: "rotate/entry-delete", Path: "entries/" + in.Name, Metadata: map[string]string{"operation": "delete"}})
}

// check reports what is wrong with settings.
func (en *entry) check(view conclave.View, programs *handover.Programs, was *entry) error {
	if _, err := en.policy(view); err != nil {
		return err
	}
	if _, err := en.schedule(); err != nil {
		return err
	}
	timeout, grace := en.Timeout.Duration(), en.GracePeriod.Duration()
	switch {
	case timeout < minTimeout || timeout > maxTimeout:
		return conclave.Errorf(conclave.Invalid, "timeout must be from 1 to 15 seconds")
	case grace < 0 || grace > maxGrace:
		return conclave.Errorf(conclave.Invalid, "grace_period must be from 0 to 366 days")
	case (en.WebhookURL == "") == (en.Command == ""):
		return conclave.Errorf(conclave.Invalid, "exactly one of webhook_url and command is needed")
	case en.WebhookURL == "" && (en.WebhookCA != "" || en.WebhookKey != ""), en.Command == "" && len(en.Arguments) > 0:
		return conclave.Errorf(conclave.Invalid, "webhook_ca_pem and webhook_key go with webhook_url, arguments with command")
	}
	if err := checkMetadata(en.Metadata); err != nil {
		return err
	}
	if en.WebhookURL != "" {
		if err := en.webhook().Check(); err != nil {
			return conclave.Errorf(conclave.Invalid, "webhook: %s", err.Error())
		}
		return nil
	}
	if was != nil && was.Command == en.Command && slices.Equal(was.Arguments, en.Arguments) {
		return nil // it may be changed on a node that doesn't have the command
	}
	if err := programs.Check(en.command()); err != nil {
		return conclave.Errorf(conclave.Invalid, "command: %s", err.Error())
	}
	return nil
}

func checkMetadata(metadata map[string]string) error {
	for name, value := range metadata {
		if name == "" || len(name) > maxName || len(value) > maxReason || !isText(name) || !isText(value) || len(metadata) > maxMetadata {
			return conclave.Errorf(conclave.Invalid, "metadata has at most %d members, names of at most %d and values of at most %d bytes, without control characters",
				maxMetadata, maxName, maxReason)
		}
	}
	return nil
}

func (en *entry) webhook() *handover.Webhook {
	return &handover.Webhook{URL: en.WebhookURL, CA: en.WebhookCA, Key: en.WebhookKey}
}

func (en *entry) command() *handover.Command {
	return &handover.Command{Path: en.Command, Arguments: en.Arguments}
}

// policy is what values are made by.
func (en *entry) policy(view conclave.View) (*password.Policy, error) {
	switch {
	case en.PasswordPolicy != "" && en.Length != 0:
		return nil, conclave.Errorf(conclave.Invalid, "password_policy and length can't both be given")
	case en.Length != 0:
		p, err := password.Plain(en.Length)
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "%s", err.Error())
		}
		return p, nil
	case en.PasswordPolicy == "":
		return password.Default(), nil
	}
	text, err := view.PasswordPolicy(en.PasswordPolicy)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, conclave.Errorf(conclave.Invalid, "there is no password policy of that name")
	}
	p, err := password.Parse(text)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the password policy can't be read: %s", err.Error())
	}
	return p, nil
}

// schedule is nil if rotations are on demand only.
func (en *entry) schedule() (*period.Schedule, error) {
	var s *period.Schedule
	var err error
	every, window := en.RotationPeriod.Duration(), en.RotationWindow.Duration()
	switch {
	case every != 0 && en.RotationSchedule != "":
		return nil, conclave.Errorf(conclave.Invalid, "rotation_period and rotation_schedule can't both be given")
	case en.RotationSchedule != "":
		if s, err = period.Cron(en.RotationSchedule); err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "rotation_schedule %s", err.Error())
		}
	case every != 0:
		if s, err = period.Every(every); err != nil || every < minPeriod {
			return nil, conclave.Errorf(conclave.Invalid, "rotation_period must be from a minute to ten years")
		}
	case window != 0:
		return nil, conclave.Errorf(conclave.Invalid, "rotation_window is for a rotation_schedule")
	default:
		return nil, nil
	}
	if err := s.CheckWindow(window); err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "rotation_window %s", err.Error())
	}
	return s, nil
}
