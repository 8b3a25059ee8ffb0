package operator

import (
	"context"
	"encoding/json"
	"net/http"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
)

// membersPath is where the vault keeps its member list.
const membersPath = "sys/members"

// Member is a node as the vault lists it.
type Member struct {
	NodeID     string `json:"node_id"`
	ServerID   string `json:"server_id"`
	APIAddress string `json:"api_address"`
	Address    string `json:"address"` // of its cluster port
	Voter      bool   `json:"voter"`
	Unsealed   bool   `json:"unsealed"`
	Leader     bool   `json:"leader"`
}

// Members asks the vault who its nodes are. The second result is the answer as it came.
func Members(ctx context.Context, c *api.Client) ([]Member, map[string]any, error) {
	answer, err := client.Request(ctx, c, http.MethodGet, membersPath, nil)
	if err != nil {
		return nil, nil, err
	}
	if answer == nil {
		return nil, nil, client.Remotef("this vault has no list of members at %s", membersPath)
	}
	text, err := json.Marshal(answer.Data)
	if err != nil {
		return nil, nil, err
	}
	var list struct {
		Members []Member `json:"members"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, nil, client.Remotef("the list of members can't be read")
	}
	return list.Members, answer.Data, nil
}
