package dbserver

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Redis starts Redis, or Valkey if that is what there is, with its users in a file. Only its user root may do anything. With
// TLS it answers at Encrypted.
func Redis() (*Server, error) {
	program, ok := find("redis-server")
	if !ok {
		if program, ok = find("valkey-server"); !ok {
			return nil, &ErrMissing{"Redis", "redis-server"}
		}
	}
	s, err := newServer("redis", "redis")
	if err != nil {
		return nil, err
	}
	s.User = "root"
	users, err := s.write("users.acl", "user default off\nuser root on >"+s.Password+" ~* &* +@all\n")
	if err == nil {
		err = s.own()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	if s.Encrypted, err = freeAddress(); err != nil {
		s.Close()
		return nil, err
	}
	_, encrypted, _ := net.SplitHostPort(s.Encrypted)
	s.launch = func() *exec.Cmd {
		return exec.Command(program, "--tls-port", encrypted, "--tls-ca-cert-file", s.Dir+"/ca.pem", "--tls-cert-file", s.Dir+"/cert.pem", "--tls-key-file", s.Dir+"/key.pem", "--tls-auth-clients", "optional", "--port", strconv.Itoa(s.Port()), "--bind", "127.0.0.1", "--dir", s.Dir, "--save", "", "--appendonly", "no", "--aclfile", users)
	}
	s.probe = func(ctx context.Context) error {
		_, err := s.RedisQuery(ctx, s.User, s.Password, "PING")
		return err
	}
	return s.begin()
}

// RedisQuery logs in as a user and sends a command.
func (s *Server) RedisQuery(ctx context.Context, user, password string, command ...any) (any, error) {
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	logging.Disable() // attempts that fail are expected
	client := redis.NewClient(&redis.Options{Addr: s.Address, Username: user, Password: password, Protocol: 2, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
	defer func() { _ = client.Close() }()
	got, err := client.Do(ctx, command...).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return got, err
}
