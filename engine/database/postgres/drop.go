package postgres

import (
	"context"
	"strings"

	"conclave/engine/database/driver"
)

// lock refuses further logins, in a transaction of its own: that holds although what follows may fail.
const lock = `DO $conclave$
DECLARE who text := current_setting('conclave.login');
BEGIN
	IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = who AND rolcanlogin) THEN
		EXECUTE format('ALTER ROLE %I NOLOGIN', who);
	END IF;
END $conclave$;`

// drop ends sessions, takes back all privileges and removes the role. DROP OWNED would remove what the role owns as well:
// a role that owns anything is left to the statements of who lets it, and DROP ROLE says what there is. To end sessions of
// others and to take back what others granted, who isn't a superuser must have the role's privileges; since PostgreSQL 16, to have
// made the role makes a member of it without them.
const drop = `DO $conclave$
DECLARE who text := current_setting('conclave.login'); id oid;
BEGIN
	SELECT oid INTO id FROM pg_catalog.pg_roles WHERE rolname = who;
	IF id IS NULL THEN RETURN; END IF;
	IF NOT pg_catalog.pg_has_role(current_user, id, 'USAGE') THEN
		BEGIN
			EXECUTE format('GRANT %I TO CURRENT_USER', who);
		EXCEPTION WHEN insufficient_privilege OR invalid_grant_operation THEN NULL;
		END;
	END IF;
	BEGIN
		PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usesysid = id;
	EXCEPTION WHEN insufficient_privilege THEN NULL;
	END;
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_shdepend WHERE refclassid = 'pg_catalog.pg_authid'::regclass AND refobjid = id AND deptype = 'o') THEN
		BEGIN
			EXECUTE format('DROP OWNED BY %I', who);
		EXCEPTION WHEN insufficient_privilege THEN NULL;
		END;
	END IF;
	EXECUTE format('DROP ROLE IF EXISTS %I', who);
END $conclave$;`

// exists has what follows it be done only if there is still somebody to do it to.
const exists = `DO $conclave$ BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = current_setting('conclave.login')) THEN
		RAISE EXCEPTION 'gone' USING ERRCODE = 'CG001';
	END IF;
END $conclave$;`

// Drop ends a login.
func (d *Driver) Drop(ctx context.Context, login *driver.Login) error {
	name, err := dialect.Render(`SET LOCAL conclave.login = '{{name}}';`+"\n", login.Values())
	if err != nil {
		return err
	}
	if len(driver.Expand(login.Statements)) == 0 {
		if err := d.do(ctx, name+lock); err != nil {
			return err
		}
		return d.do(ctx, name+drop)
	}
	text, err := dialect.Join(login.Statements, login.Values())
	if err != nil {
		return err
	}
	err = d.do(ctx, name+exists+text)
	if err != nil && strings.HasSuffix(err.Error(), "(CG001)") {
		return nil
	}
	return err
}
