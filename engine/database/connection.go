package database

import (
	"encoding/json"
	"time"

	"conclave"
	"conclave/engine/database/driver"
	"conclave/engine/database/username"
	"conclave/internal/glob"
)

// details are how to reach a database and how to get in, as Vault names them.
type details struct {
	URL            string        `json:"connection_url" doc:"Where the database is, with {{username}} and {{password}} in it."`
	Username       string        `json:"username" doc:"The user that makes and ends logins."`
	MaxOpen        int           `json:"max_open_connections" doc:"Connections of each node to the database, at most; 0 means 4."`
	MaxIdle        int           `json:"max_idle_connections" doc:"Connections that are kept open without work; 0 means all, a negative number none."`
	MaxLifetime    time.Duration `json:"max_connection_lifetime" doc:"How long a connection is used; 0 means without limit."`
	Template       string        `json:"username_template" doc:"Template of the names of logins."`
	NoEscaping     bool          `json:"disable_escaping" doc:"Put user and password into connection_url as they are."`
	Authentication string        `json:"password_authentication" doc:"PostgreSQL: with scram-sha-256 the database is sent what it keeps of a password, never the password; default: password."`
	TLSCA          string        `json:"tls_ca" doc:"The authorities that the database's certificate must come from, PEM; empty for the system's."`
	TLSCertificate string        `json:"tls_certificate" doc:"The certificate to show to the database, PEM."`
	TLSServerName  string        `json:"tls_server_name" doc:"The name that the database's certificate must have, if not that of the host."`
	TLSSkipVerify  bool          `json:"tls_skip_verify" doc:"Take any server for the database: don't check its certificate."`
	Host           string        `json:"host" doc:"Redis: the server's host."`
	Port           int           `json:"port" doc:"Redis: the server's port."`
	TLS            bool          `json:"tls" doc:"Redis: encrypt connections."`
	InsecureTLS    bool          `json:"insecure_tls" doc:"Redis: don't check the server's certificate."`
	CACert         string        `json:"ca_cert" doc:"Redis: the authorities that the server's certificate must come from, PEM."`
	Persistence    string        `json:"persistence_mode" doc:"Redis: how logins outlive a restart of the server: aclfile or rewrite; default: they don't."`
	SelfManaged    bool          `json:"self_managed" doc:"Static roles change their password with their own: the connection has no user."`
}

// connection is what is stored of a connection but for its password, JSON.
type connection struct {
	PluginName     string   `json:"plugin_name"`
	PluginVersion  string   `json:"plugin_version"`
	Verify         bool     `json:"verify_connection"`
	AllowedRoles   []string `json:"allowed_roles"`
	PasswordPolicy string   `json:"password_policy"`
	details
	RootStatements    []string `json:"root_statements"`
	TLSCertificateKey string   `json:"tls_certificate_key"`
	PrivateKey        string   `json:"private_key"`
	Resets            uint64   `json:"resets"`
	rotation
	NoRotation bool `json:"disable_automated_rotation"`
}

type connectionIn struct {
	Name           string   `path:"name" doc:"The connection's name."`
	PluginName     string   `json:"plugin_name" doc:"The kind of database: postgresql-database-plugin, mysql-database-plugin, redis-database-plugin or valkey-database-plugin."`
	PluginVersion  string   `json:"plugin_version" doc:"Accepted for compatibility: there is one version."`
	Verify         *bool    `json:"verify_connection" doc:"Connect to the database before the configuration is stored; default true."`
	AllowedRoles   []string `json:"allowed_roles" doc:"Names of the roles that may use the connection; * stands for any text."`
	PasswordPolicy string   `json:"password_policy" doc:"Name of the policy of passwords; empty for 20 letters, digits and hyphens."`
	details
	RootStatements    any             `json:"root_rotation_statements" doc:"Statements that change the password of the connection's user."`
	Password          conclave.Secret `json:"password" doc:"The user's password; never shown."`
	TLSCertificateKey conclave.Secret `json:"tls_certificate_key" doc:"The certificate to show to the database with its key, PEM; never shown."`
	PrivateKey        conclave.Secret `json:"private_key" doc:"The key of tls_certificate, PEM; never shown."`
	rotation
	NoRotation bool           `json:"disable_automated_rotation" doc:"Don't change the user's password by period or schedule."`
	Fields     map[string]any `json:"*"`
}

type connectionOut struct {
	PluginName     string         `json:"plugin_name" doc:"The kind of database."`
	PluginVersion  string         `json:"plugin_version" doc:"The version that was asked for."`
	Verify         bool           `json:"verify_connection" doc:"Whether the configuration was tried before it was stored."`
	AllowedRoles   []string       `json:"allowed_roles" doc:"Names of the roles that may use the connection."`
	PasswordPolicy string         `json:"password_policy" doc:"Name of the policy of passwords."`
	RootStatements []string       `json:"root_credentials_rotate_statements" doc:"Statements that change the password of the connection's user."`
	Details        map[string]any `json:"connection_details" doc:"How to reach the database, without secrets."`
	rotation
	NoRotation bool `json:"disable_automated_rotation" doc:"Whether period and schedule are off."`
}

// loadConnection returns nil if there is none. What it returns is shared and must not be changed.
func loadConnection(view conclave.View, name string) (*connection, error) {
	found, err := view.Load(connectionDir+name, func(value []byte) (any, error) {
		c := &connection{}
		return c, json.Unmarshal(value, c)
	})
	if err != nil || found == nil {
		return nil, err
	}
	return found.(*connection), nil
}

// knownConnection is loadConnection for those who need one.
func knownConnection(view conclave.View, name string) (*connection, error) {
	c, err := loadConnection(view, name)
	if err == nil && c == nil {
		err = conclave.Errorf(conclave.Invalid, "failed to find entry for connection with name: %q", name)
	}
	return c, err
}

// stored is what a change of a connection begins with; nil if there is nothing.
type stored struct {
	connection *connection
	root       *root
}

func gatherConnection(view conclave.View, in any) (any, error) {
	return storedOf(view, in.(*connectionIn).Name)
}

func storedOf(view conclave.View, name string) (stored, error) {
	c, err := loadConnection(view, name)
	if err != nil {
		return stored{}, err
	}
	r, err := loadRoot(view, name)
	return stored{c, r}, err
}

// merged is what the connection will be.
func (s stored) merged(in *connectionIn) (*connection, *root, error) {
	c, r := connection{Verify: true, AllowedRoles: []string{}, RootStatements: []string{}}, root{}
	if s.connection != nil {
		c = *s.connection
	}
	if s.root != nil {
		r = *s.root
	}
	statements, resets := c.RootStatements, c.Resets
	if err := conclave.Merge(&c, in.Fields); err != nil {
		return nil, nil, err
	}
	c.RootStatements, c.Resets = statements, resets // they aren't fields
	if in.RootStatements != nil {
		var err error
		if c.RootStatements, err = statementsOf("root_rotation_statements", in.RootStatements); err != nil {
			return nil, nil, err
		}
	}
	if _, given := in.Fields["password"]; given {
		r.Password, r.Pending = in.Password.Reveal(), ""
	}
	return &c, &r, c.check()
}

func (c *connection) check() error {
	f, known := families[c.PluginName]
	switch {
	case c.PluginName == "":
		return conclave.Errorf(conclave.Invalid, "plugin_name is missing")
	case !known:
		_, err := openDriver(driver.Settings{Plugin: c.PluginName})
		return err
	case len(c.AllowedRoles) > maxList:
		return conclave.Errorf(conclave.Invalid, "at most %d allowed roles", maxList)
	case c.MaxOpen < 0 || c.MaxOpen > driver.MaxOpen:
		return conclave.Errorf(conclave.Invalid, "max_open_connections must be between 0 and %d", driver.MaxOpen)
	case c.MaxLifetime < 0:
		c.MaxLifetime = 0
	}
	for _, text := range []string{c.URL, c.Username, c.Template, c.PasswordPolicy, c.Host, c.TLSServerName, c.PluginVersion} {
		if len(text) > maxText {
			return conclave.Errorf(conclave.Invalid, "a field has at most %d bytes", maxText)
		}
	}
	for _, text := range []string{c.TLSCA, c.TLSCertificate, c.TLSCertificateKey, c.PrivateKey, c.CACert} {
		if len(text) > 4*maxText {
			return conclave.Errorf(conclave.Invalid, "certificates and keys have at most %d bytes", 4*maxText)
		}
	}
	if c.Template != "" {
		template, err := username.Parse(c.Template, f.nameLimit)
		if err != nil {
			return err
		}
		if err := template.Differ(deterministic()); err != nil {
			return err
		}
	}
	if _, err := c.rotation.parse(); err != nil {
		return err
	}
	d, err := openDriver(c.settings("")) // it connects nowhere
	if err == nil {
		d.Close()
	}
	return err
}

// settings are the connection's for a driver.
func (c *connection) settings(password string) driver.Settings {
	return driver.Settings{Plugin: c.PluginName, URL: c.URL, Username: c.Username, Password: password, DisableEscaping: c.NoEscaping, Host: c.Host, Port: c.Port,
		MaxOpen: c.MaxOpen, MaxIdle: c.MaxIdle, MaxLifetime: c.MaxLifetime, Authentication: c.Authentication, Persistence: c.Persistence, Encrypted: c.TLS,
		TLS: driver.TLS{CA: c.TLSCA + c.CACert, Certificate: c.TLSCertificate + c.TLSCertificateKey, Key: c.PrivateKey, ServerName: c.TLSServerName,
			SkipVerify: c.TLSSkipVerify || c.InsecureTLS}}
}

// allows reports whether a role may use the connection.
func (c *connection) allows(role string) bool { return glob.MatchAny(c.AllowedRoles, role) }
