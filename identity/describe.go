package identity

import (
	"strings"
	"time"

	"conclave"
)

// aliasCore is what is told of every alias.
type aliasCore struct {
	ID                     string            `json:"id" doc:"Names the alias for ever."`
	CanonicalID            string            `json:"canonical_id" doc:"The entity or group that it belongs to."`
	CreationTime           string            `json:"creation_time" doc:"When it was made."`
	LastUpdateTime         string            `json:"last_update_time" doc:"When it was changed last."`
	MergedFromCanonicalIDs []string          `json:"merged_from_canonical_ids" doc:"The entities that it belonged to before they were merged."`
	Metadata               map[string]string `json:"metadata" doc:"What the auth method says about it."`
	MountAccessor          string            `json:"mount_accessor" doc:"The auth method's mount."`
	MountPath              string            `json:"mount_path,omitempty" doc:"Where that is mounted; absent if it isn't any more."`
	MountType              string            `json:"mount_type,omitempty" doc:"Of what kind that is; absent if it isn't mounted any more."`
	Name                   string            `json:"name" doc:"By which the auth method knows it."`
}

// aliasOutput is an alias as it is shown with its entity.
type aliasOutput struct {
	aliasCore
	CustomMetadata map[string]string `json:"custom_metadata" doc:"What people say about it."`
	Local          bool              `json:"local" doc:"Whether the mount is local."`
}

// wholeAlias is an alias as it is shown alone.
type wholeAlias struct {
	aliasOutput
	NamespaceID string `json:"namespace_id" doc:"The namespace; root for the root namespace."`
}

type entityOutput struct {
	Aliases           []aliasOutput     `json:"aliases" doc:"How auth methods know it."`
	CreationTime      string            `json:"creation_time" doc:"When it was made."`
	DirectGroupIDs    []string          `json:"direct_group_ids" doc:"Groups that it is a member of itself."`
	Disabled          bool              `json:"disabled" doc:"Whether its tokens are refused."`
	GroupIDs          []string          `json:"group_ids" doc:"All its groups."`
	ID                string            `json:"id" doc:"Names the entity for ever."`
	InheritedGroupIDs []string          `json:"inherited_group_ids" doc:"Groups above those that it is a member of."`
	LastUpdateTime    string            `json:"last_update_time" doc:"When it was changed last."`
	MergedEntityIDs   []string          `json:"merged_entity_ids" doc:"The entities that were merged into it."`
	Metadata          map[string]string `json:"metadata" doc:"Metadata for templates."`
	Name              string            `json:"name" doc:"Its name."`
	NamespaceID       string            `json:"namespace_id" doc:"The namespace; root for the root namespace."`
	Policies          []string          `json:"policies" doc:"Its own policies."`
}

type groupOutput struct {
	Alias           any               `json:"alias" doc:"How an auth method knows an external group; empty if it has none."`
	CreationTime    string            `json:"creation_time" doc:"When it was made."`
	ID              string            `json:"id" doc:"Names the group for ever."`
	LastUpdateTime  string            `json:"last_update_time" doc:"When it was changed last."`
	MemberEntityIDs []string          `json:"member_entity_ids" doc:"The entities that are members themselves; the first 10,000 of an external group."`
	MemberGroupIDs  []string          `json:"member_group_ids" doc:"The groups that are members."`
	Metadata        map[string]string `json:"metadata" doc:"Metadata for templates."`
	ModifyIndex     int64             `json:"modify_index" doc:"Counts the changes."`
	Name            string            `json:"name" doc:"Its name."`
	NamespaceID     string            `json:"namespace_id" doc:"The namespace; root for the root namespace."`
	ParentGroupIDs  []string          `json:"parent_group_ids" doc:"The groups that it is a member of."`
	Policies        []string          `json:"policies" doc:"What it gives to its members."`
	Type            string            `json:"type" doc:"internal or external."`
}

func stamp(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }

// namespaceID is how answers name the namespace.
func namespaceID(view conclave.View) string {
	if request := view.Request(); request != nil && request.Namespace != "" {
		return strings.TrimSuffix(request.Namespace, "/")
	}
	return "root"
}

// seeing describes things in one request. It looks up each mount once.
type seeing struct {
	mounts Mounts
	view   conclave.View
	met    map[string]mountInfo // accessor → mount
}

type mountInfo struct {
	path, kind string
	local      bool
}

func (s Setup) seeing(view conclave.View) *seeing {
	return &seeing{s.Mounts, view, map[string]mountInfo{}}
}

func (s *seeing) mount(accessor string) (mountInfo, error) {
	if info, met := s.met[accessor]; met {
		return info, nil
	}
	path, kind, local, ok, err := s.mounts.ByAccessor(s.view, accessor)
	if err != nil {
		return mountInfo{}, err
	}
	info := mountInfo{}
	if ok {
		info = mountInfo{path, kind, local}
	}
	s.met[accessor] = info
	return info, nil
}

func (s *seeing) core(a *alias, owner string) (aliasCore, mountInfo, error) {
	mount, err := s.mount(a.Accessor)
	return aliasCore{ID: a.ID, CanonicalID: owner, CreationTime: stamp(a.Created), LastUpdateTime: stamp(a.Updated), MergedFromCanonicalIDs: a.MergedFrom,
		Metadata: a.Metadata, MountAccessor: a.Accessor, MountPath: mount.path, MountType: mount.kind, Name: a.Name}, mount, err
}

func (s *seeing) alias(a *alias, owner string) (aliasOutput, error) {
	core, mount, err := s.core(a, owner)
	return aliasOutput{core, a.Custom, mount.local}, err
}

func (s *seeing) wholeAlias(a *alias, owner string) (*wholeAlias, error) {
	out, err := s.alias(a, owner)
	if err != nil {
		return nil, err
	}
	return &wholeAlias{out, namespaceID(s.view)}, nil
}

func (s *seeing) entity(e *entity) (*entityOutput, error) {
	m, err := loadMemberships(s.view, e.id)
	if err != nil {
		return nil, err
	}
	i, err := find(s.view, e, m)
	if err != nil {
		return nil, err
	}
	out := &entityOutput{Aliases: []aliasOutput{}, CreationTime: stamp(e.Created), DirectGroupIDs: present(i.GroupIDs[:i.direct]), Disabled: e.Disabled,
		GroupIDs: present(i.GroupIDs), ID: e.id, InheritedGroupIDs: present(i.GroupIDs[i.direct:]), LastUpdateTime: stamp(e.Updated), MergedEntityIDs: e.Merged,
		Metadata: e.Metadata, Name: e.Name, NamespaceID: namespaceID(s.view), Policies: present(e.Policies)}
	for n := range e.Aliases {
		a, err := s.alias(&e.Aliases[n], e.id)
		if err != nil {
			return nil, err
		}
		out.Aliases = append(out.Aliases, a)
	}
	return out, nil
}

// present is a list that is never null in JSON.
func present(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (s *seeing) group(g *group) (*groupOutput, error) {
	out := &groupOutput{Alias: struct{}{}, CreationTime: stamp(g.Created), ID: g.id, LastUpdateTime: stamp(g.Updated), Metadata: g.Metadata,
		ModifyIndex: g.Revision, Name: g.Name, NamespaceID: namespaceID(s.view), ParentGroupIDs: g.Parents, Policies: g.Policies, Type: g.kind()}
	if g.Alias != nil {
		core, _, err := s.core(g.Alias, g.id)
		if err != nil {
			return nil, err
		}
		out.Alias = core
	}
	members, err := s.view.List(memberDir+g.id+"/", "", MaxMembers)
	if err != nil {
		return nil, err
	}
	out.MemberEntityIDs = present(members)
	subgroups, err := s.view.List(subgroupDir+g.id+"/", "", 0)
	if err != nil {
		return nil, err
	}
	if len(subgroups) > 0 {
		out.MemberGroupIDs = subgroups
	}
	return out, nil
}

const (
	internalGroup = "internal"
	externalGroup = "external"
)

func (g *group) kind() string {
	if g.External {
		return externalGroup
	}
	return internalGroup
}

// brief is an alias as it is told in listings of what it belongs to.
func (s *seeing) brief(a *alias) (map[string]any, error) {
	mount, err := s.mount(a.Accessor)
	entry := map[string]any{"id": a.ID, "name": a.Name, "mount_accessor": a.Accessor}
	if mount.path != "" {
		entry["mount_path"], entry["mount_type"] = mount.path, mount.kind
	}
	return entry, err
}

func (s *seeing) entityInfo(e *entity) (map[string]any, error) {
	info := map[string]any{"name": e.Name}
	var aliases []any
	for n := range e.Aliases {
		entry, err := s.brief(&e.Aliases[n])
		if err != nil {
			return nil, err
		}
		aliases = append(aliases, entry)
	}
	if len(aliases) > 0 {
		info["aliases"] = aliases
	}
	return info, nil
}

func (s *seeing) groupInfo(g *group) (map[string]any, error) {
	members, err := s.view.List(memberDir+g.id+"/", "", MaxMembers)
	if err != nil {
		return nil, err
	}
	info := map[string]any{"name": g.Name, "num_member_entities": len(members), "num_parent_groups": len(g.Parents)}
	if g.Alias != nil {
		if info["alias"], err = s.brief(g.Alias); err != nil {
			return nil, err
		}
	}
	return info, nil
}

func (s *seeing) aliasInfo(a *alias, owner string) (map[string]any, error) {
	mount, err := s.mount(a.Accessor)
	info := map[string]any{"name": a.Name, "canonical_id": owner, "mount_accessor": a.Accessor, "custom_metadata": a.Custom, "metadata": a.Metadata, "local": mount.local}
	if mount.path != "" {
		info["mount_path"], info["mount_type"] = mount.path, mount.kind
	}
	return info, err
}

// details maps ids → what describe says of them, nil if they are too many. What isn't there is left out.
func details(ids []string, describe func(id string) (map[string]any, error)) (map[string]any, error) {
	if len(ids) > maxInfo {
		return nil, nil
	}
	infos := map[string]any{}
	for _, id := range ids {
		info, err := describe(id)
		if err != nil {
			return nil, err
		}
		if info != nil {
			infos[id] = info
		}
	}
	return infos, nil
}
