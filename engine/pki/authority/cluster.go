package authority

import (
	"conclave"
	"conclave/engine/pki/stored"
)

// ClusterPath is the URL under which clients reach the mount; empty if nobody has said.
func ClusterPath(view conclave.View) (string, error) {
	cluster, err := stored.LoadOr(view, "config/cluster", clusterConfig{})
	if err != nil {
		return "", err
	}
	return cluster.Path, nil
}
