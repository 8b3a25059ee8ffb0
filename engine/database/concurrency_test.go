package database

import (
	"fmt"
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
