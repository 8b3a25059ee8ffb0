package dbserver

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Postgres starts PostgreSQL. It takes connections with TLS and without it, and passwords by SCRAM only.
func Postgres() (*Server, error) {
	postgres, ok := find("postgres", "/usr/lib/postgresql/*/bin/postgres", "/usr/libexec/postgresql*/postgres")
	if !ok {
		return nil, &ErrMissing{"PostgreSQL", "postgresql"}
	}
	s, err := newServer("postgres", "postgres")
	if err != nil {
		return nil, err
	}
	s.User = "postgres"
	secret, err := s.write("password", s.Password)
	if err == nil {
		err = s.own()
	}
	data := filepath.Join(s.Dir, "data")
	if err == nil {
		err = s.prepare(filepath.Join(filepath.Dir(postgres), "initdb"), "-D", data, "-U", s.User, "--pwfile="+secret, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.launch = func() *exec.Cmd {
		args := []string{"-D", data, "-p", strconv.Itoa(s.Port())}
		for _, setting := range []string{"listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "full_page_writes=off",
			"shared_buffers=32MB", "max_connections=100", "ssl=on", "ssl_cert_file=" + s.Dir + "/cert.pem", "ssl_key_file=" + s.Dir + "/key.pem", "ssl_ca_file=" + s.Dir + "/ca.pem",
			"autovacuum=off", "log_min_messages=error", "log_min_error_statement=panic"} {
			args = append(args, "-c", setting)
		}
		return exec.Command(postgres, args...)
	}
	s.probe = func(ctx context.Context) error {
		conn, err := s.postgres(ctx, s.User, s.Password)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
	return s.begin()
}

// postgres logs in with TLS.
func (s *Server) postgres(ctx context.Context, user, password string) (*pgconn.PgConn, error) {
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	config, err := pgconn.ParseConfig(fmt.Sprintf("postgres://%s/postgres?sslmode=verify-full&sslrootcert=%s/ca.pem", s.Address, s.Dir))
	if err != nil {
		return nil, err
	}
	config.User, config.Password = user, password
	return pgconn.ConnectConfig(ctx, config)
}

// PostgresQuery logs in as a user, does what text says, and returns the first column of what the last statement gives.
func (s *Server) PostgresQuery(ctx context.Context, user, password, text string) ([]string, error) {
	conn, err := s.postgres(ctx, user, password)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	results, err := conn.Exec(ctx, text).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	var first []string
	for _, row := range results[len(results)-1].Rows {
		first = append(first, string(row[0]))
	}
	return first, nil
}
