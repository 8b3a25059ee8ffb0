# Every setting that has a meaning, and some that have none here.
api_addr         = "https://vault-1:8200"
cluster_addr     = "https://vault-1"
cluster_name     = "prod"
version_reported = "1.19.5"
ui               = true
log_level        = "Debug"
log_format       = "json"
pid_file         = "/run/conclave.pid"
disable_mlock    = true

default_lease_ttl            = "24h"
max_lease_ttl                = "30d"
default_max_request_duration = 60
health_leader_only           = "true"

listener "tcp" {
  address                              = "0.0.0.0:8200"
  cluster_address                      = "0.0.0.0:8201"
  tls_cert_file                        = "/etc/conclave/tls.pem"
  tls_key_file                         = "/etc/conclave/tls.key"
  tls_client_ca_file                   = "/etc/conclave/ca.pem"
  tls_require_and_verify_client_cert   = true
  tls_min_version                      = "tls13"
  tls_cipher_suites                    = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
  http_read_timeout                    = "20s"
  max_request_size                     = 1048576
  max_request_duration                 = "1m"
  x_forwarded_for_authorized_addrs     = "10.0.0.1/8, 192.0.2.1"
  x_forwarded_for_hop_skips            = "1"
  x_forwarded_for_reject_not_present   = "false"
  proxy_protocol_behavior              = "allow_authorized"
  proxy_protocol_authorized_addrs      = ["10.1.0.0/16"]
  telemetry {
    unauthenticated_metrics_access = true
  }
}

listener "unix" {
  address      = "/run/conclave.sock"
  socket_mode  = "0660"
  socket_user  = "conclave"
  socket_group = "1000"
}

storage "raft" {
  path                   = "/var/lib/conclave"
  node_id                = "n1"
  log_store              = "boltdb"
  performance_multiplier = 1
  retry_join {
    leader_api_addr     = "https://vault-2:8200"
    leader_ca_cert_file = "/etc/conclave/ca.pem"
  }
  retry_join {
    gossip_addr = "vault-3:9302"
  }
}

cluster {
  bootstrap_expect = 3
  join             = ["vault-4"]
  gossip_addr      = "0.0.0.0:9302"
  secret_file      = "/etc/conclave/secret"
}

seal "static" {
  current_key_id   = "2026"
  current_key      = "file:///etc/conclave/key"
  previous_key_id  = "2025"
  previous_key_env = "OLD_KEY"
}

telemetry {
  prometheus_retention_time = "12h"
  disable_hostname          = true
}

rotate {
  command_directories = ["/usr/local/lib/conclave/rotate"]
}
audit {
  directories = ["/var/log/conclave"]
  max_size = "200GiB"
  epoch_max_age = "720h"
  epoch_max_records = 50000000
}

plugin_directory = "/usr/lib/vault"
