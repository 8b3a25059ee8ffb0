# Node 3 of the trial cluster in docker-compose.yml.
listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  tls_cert_file   = "/etc/conclave/node.crt"
  tls_key_file    = "/etc/conclave/node.key"
}

storage "raft" {
  path    = "/data"
  node_id = "node3"
}

cluster {
  bootstrap_expect = 3
  join             = ["node1:8302", "node2:8302"]
  gossip_addr      = "0.0.0.0:8302"
  secret_file      = "/etc/conclave/cluster.secret"
}

# Audit files may be made here, on a volume of their own.
audit {
  directories = ["/audit"]
}

# The key comes from .env by way of the environment, so that a container that
# was restarted opens by itself.
seal "static" {
  current_key_id = "compose"
  current_key    = "env://CONCLAVE_SEAL_KEY"
}

api_addr     = "https://node3:8200"
cluster_addr = "node3:8201"
