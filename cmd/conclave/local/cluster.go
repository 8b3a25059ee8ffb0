package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// clusterFile is the file that describes a lab, mode 0600.
const clusterFile = "cluster.json"

// Cluster is the content of cluster.json: one element per node in node order. Other programs read it; members are added,
// never changed.
type Cluster struct {
	Addrs      []string   `json:"addrs"` // URLs of the API
	RootToken  string     `json:"root_token"`
	UnsealKeys []string   `json:"unseal_keys"` // base64
	Threshold  int        `json:"threshold"`
	CA         string     `json:"ca"` // path of a PEM file
	DataDirs   []string   `json:"data_dirs"`
	PIDs       []int      `json:"pids"` // 0 for a node that is down
	LogFiles   []string   `json:"log_files"`
	AuditFiles []string   `json:"audit_files"`
	StartCmds  []StartCmd `json:"start_cmds"`
	// ClusterPorts and GossipPorts are what nodes talk to each other through.
	ClusterPorts []int `json:"cluster_ports"`
	GossipPorts  []int `json:"gossip_ports"`
	// Groups are the group ids that the nodes run with, where the lab may choose them, so that a firewall can tell them
	// apart; empty otherwise.
	Groups []int `json:"groups,omitempty"`
}

// StartCmd starts a node's process. Env is added to the environment.
type StartCmd struct {
	Argv []string `json:"argv"`
	Dir  string   `json:"dir"`
	Env  []string `json:"env"`
}

func load(dir string) (*Cluster, error) {
	text, err := os.ReadFile(filepath.Join(dir, clusterFile))
	if err != nil {
		return nil, err
	}
	c := new(Cluster)
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, clusterFile), err)
	}
	n := len(c.Addrs)
	for _, other := range []int{len(c.DataDirs), len(c.PIDs), len(c.LogFiles), len(c.StartCmds), len(c.ClusterPorts), len(c.GossipPorts)} {
		if other != n || n == 0 {
			return nil, fmt.Errorf("%s doesn't describe a lab", filepath.Join(dir, clusterFile))
		}
	}
	for _, start := range c.StartCmds {
		if len(start.Argv) == 0 {
			return nil, fmt.Errorf("%s doesn't say how to start a node", filepath.Join(dir, clusterFile))
		}
	}
	return c, nil
}

// save replaces cluster.json in one step, so that who reads it meanwhile sees the old one or the new one.
func (c *Cluster) save(dir string) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, clusterFile+".*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("describe the lab: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("describe the lab: %w", err)
	}
	return os.Rename(f.Name(), filepath.Join(dir, clusterFile))
}
