package database

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/engine/database/driver"
)

// Several nodes make and end logins at once that are granted the same tables, which PostgreSQL has no queue for.
func TestLoginsOfOneDatabaseAtOnce(t *testing.T) {
	const tables, nodes, perNode, each = 20, 3, 4, 5
	for _, k := range trials() {
		t.Run(k.name, func(t *testing.T) {
			h := newHarness(t)
			s := k.configure(t, h, "db", nil)
			if k.name == "postgres" {
				for i := range tables {
					asRoot(t, s, fmt.Sprintf("CREATE TABLE public.crowded%d (a int)", i))
					defer asRoot(t, s, fmt.Sprintf("DROP TABLE public.crowded%d", i))
				}
			}
			c, err := loadConnection(h.View(), "db")
			if err != nil {
				t.Fatal(err)
			}
			var group errgroup.Group
			for node := range nodes {
				d, err := openDriver(c.settings(s.Password))
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				for conn := range perNode {
					group.Go(func() error {
						for i := range each {
							statements, err := statementsOf("x", k.creation)
							if list, ok := k.creation.([]string); ok {
								statements, err = list, nil
							}
							if err != nil {
								return err
							}
							login := &driver.Login{Name: fmt.Sprintf("at-once-%d-%d-%d", node, conn, i), Password: "secret", Until: time.Now().Add(time.Hour), Statements: statements}
							if err := d.Create(t.Context(), login); err != nil {
								return fmt.Errorf("create %s: %w", login.Name, err)
							}
							if err := d.Drop(t.Context(), &driver.Login{Name: login.Name}); err != nil {
								return fmt.Errorf("drop %s: %w", login.Name, err)
							}
						}
						return nil
					})
				}
			}
			if err := group.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A server that takes connections and says nothing is given up when the one who waits has had enough.
func TestASilentServerIsGivenUp(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	_, text, _ := net.SplitHostPort(silent.Addr().String())
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, settings := range []driver.Settings{
		{Plugin: "postgresql-database-plugin", URL: "postgres://{{username}}:{{password}}@" + silent.Addr().String() + "/db"},
		{Plugin: "mysql-database-plugin", URL: "{{username}}:{{password}}@tcp(" + silent.Addr().String() + ")/"},
		{Plugin: "redis-database-plugin", Host: "127.0.0.1", Port: port, Username: "u", Password: "p"},
	} {
		d, err := openDriver(settings)
		if err != nil {
			t.Fatal(err)
		}
		for what, act := range map[string]func(context.Context) error{
			"Verify": d.Verify,
			"Create": func(ctx context.Context) error {
				return d.Create(ctx, &driver.Login{Name: "n", Password: "p", Statements: []string{"x"}})
			},
			"SetPassword": func(ctx context.Context) error { return d.SetPassword(ctx, &driver.Login{Name: "n", Password: "p"}) },
			"Drop":        func(ctx context.Context) error { return d.Drop(ctx, &driver.Login{Name: "n"}) },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if err := act(ctx); err != driver.ErrTimeout {
				t.Errorf("%s of %s: %v, want %v", what, settings.Plugin, err, driver.ErrTimeout)
			}
			cancel()
		}
		d.Close()
	}
}
