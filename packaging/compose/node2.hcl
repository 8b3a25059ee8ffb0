# Node 2 of the trial cluster in docker-compose.yml.
listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/etc/conclave/node.crt"
  tls_key_file  = "/etc/conclave/node.key"
}

storage "raft" {
  path                = "/data"
  node_id             = "node2"
  bootstrap_expect    = 3
  cluster_secret_file = "/etc/conclave/cluster.secret"
  retry_join {
    join = ["node1:8201", "node2:8201", "node3:8201"]
  }
}

# The key comes from .env by way of the environment, so that a container that
# was restarted opens by itself.
seal "static" {
  current_key_id = "compose"
  current_key    = "env://CONCLAVE_SEAL_KEY"
}

api_addr     = "https://node2:8200"
cluster_addr = "https://node2:8201"
