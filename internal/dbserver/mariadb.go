package dbserver

import (
	"context"
	"database/sql"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"
)

// MariaDB starts MariaDB. It takes connections with TLS and without it.
func MariaDB() (*Server, error) {
	mariadbd, ok := find("mariadbd", "/usr/sbin/mariadbd")
	install, also := find("mariadb-install-db")
	if !ok || !also {
		return nil, &ErrMissing{"MariaDB", "mariadb-server"}
	}
	s, err := newServer("mariadb", "mysql")
	if err != nil {
		return nil, err
	}
	s.User = "root"
	data := filepath.Join(s.Dir, "data")
	err = s.prepare(install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
	var setup string
	if err == nil {
		setup, err = s.write("setup.sql", "ALTER USER root@localhost IDENTIFIED BY '"+s.Password+"';\nCREATE OR REPLACE USER 'root'@'127.0.0.1' IDENTIFIED BY '"+s.Password+
			"';\nGRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n")
	}
	if err == nil {
		err = s.own()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	first := true
	s.launch = func() *exec.Cmd {
		args := []string{"--no-defaults", "--datadir=" + data, "--port=" + strconv.Itoa(s.Port()), "--bind-address=127.0.0.1", "--socket=" + s.Dir + "/socket", "--pid-file=" + s.Dir + "/pid",
			"--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--performance-schema=off", "--key-buffer-size=1M",
			"--ssl-ca=" + s.Dir + "/ca.pem", "--ssl-cert=" + s.Dir + "/cert.pem", "--ssl-key=" + s.Dir + "/key.pem"}
		if first { // later it would undo what has been changed since
			args, first = append(args, "--init-file="+setup), false
		}
		return exec.Command(mariadbd, args...)
	}
	s.probe = func(ctx context.Context) error {
		_, err := s.MariaDBQuery(ctx, s.User, s.Password, "SELECT 1")
		return err
	}
	return s.begin()
}

// MariaDBQuery logs in as a user, does what text says, and returns the first column of what it gives.
func (s *Server) MariaDBQuery(ctx context.Context, user, password, text string) ([]string, error) {
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr, config.Logger = user, password, "tcp", s.Address, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(ctx, text)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var first []string
	for rows.Next() {
		var value string
		if err := rows.Scan(&value); err != nil {
			return nil, err
		}
		first = append(first, value)
	}
	return first, rows.Err()
}
