package authority

import (
	"context"
	"net/url"
	"strings"

	"conclave"
	"conclave/engine/pki/stored"
)

type (
	// issuersConfig is stored at config/issuers.
	issuersConfig struct {
		Default string `json:"default" doc:"Id of the issuer that signs where no other is named."`
		Follows bool   `json:"default_follows_latest_issuer" doc:"Whether an issuer that is made or imported becomes the default."`
	}
	// keysConfig is stored at config/keys.
	keysConfig struct {
		Default string `json:"default" doc:"Id of the key that is used where no other is named."`
	}
	// clusterConfig is stored at config/cluster.
	clusterConfig struct {
		Path    string `json:"path" doc:"URL of this mount, as clients of this cluster reach it: the value of {{cluster_path}}."`
		AIAPath string `json:"aia_path" doc:"URL that is put in certificates, maybe of a server that holds copies: the value of {{cluster_aia_path}}."`
	}
)

// configRoutes are those of the mount's settings.
func configRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "config/issuers", "Read which issuer is the default.", readIssuersConfig),
		conclave.WriteRoute(conclave.Update, "config/issuers", "Choose the default issuer.", writeIssuersConfig),
		conclave.WriteRoute(conclave.Update, "root/replace", "Make another issuer the default one: the one named next, if none is given.", replaceRoot),
		conclave.ReadRoute(conclave.Read, "config/keys", "Read which key is the default.", readKeysConfig),
		conclave.WriteRoute(conclave.Update, "config/keys", "Choose the default key.", writeKeysConfig),
		conclave.ReadRoute(conclave.Read, "config/urls", "Read the URLs that certificates hold.", readURLs),
		conclave.WriteRoute(conclave.Update, "config/urls", "Set the URLs that certificates hold: of the issuer's certificate, its revocation lists, its OCSP responder.", writeURLs),
		conclave.ReadRoute(conclave.Read, "config/cluster", "Read where the mount is reached.", readCluster),
		conclave.WriteRoute(conclave.Update, "config/cluster", "Set where the mount is reached, for templates of URLs.", writeCluster),
	}
}

func readIssuersConfig(_ context.Context, view conclave.View, _ *conclave.None) (*issuersConfig, error) {
	return stored.LoadOr(view, "config/issuers", issuersConfig{})
}

type issuersConfigIn struct {
	Default *string `json:"default" doc:"Id or name of the issuer that signs where no other is named."`
	Follows *bool   `json:"default_follows_latest_issuer" doc:"Whether an issuer that is made or imported becomes the default."`
}

func writeIssuersConfig(_ context.Context, tx conclave.Tx, in *issuersConfigIn) (*issuersConfig, error) {
	return setIssuersConfig(tx, in)
}

func setIssuersConfig(tx conclave.Tx, in *issuersConfigIn) (*issuersConfig, error) {
	old, err := stored.LoadOr(tx, "config/issuers", issuersConfig{})
	if err != nil {
		return nil, err
	}
	config := *old
	if in.Follows != nil {
		config.Follows = *in.Follows
	}
	if in.Default != nil {
		if *in.Default == "" || *in.Default == DefaultRef {
			return nil, conclave.Errorf(conclave.Invalid, "invalid issuer specification; must be non-empty and can't be 'default'")
		}
		issuer, err := Find(tx, *in.Default)
		if err != nil {
			return nil, err
		}
		config.Default = issuer.ID
	}
	return &config, stored.Put(tx, "config/issuers", config)
}

type replaceIn struct {
	Default string `json:"default" doc:"Id or name of the issuer; next if it isn't given."`
}

func replaceRoot(_ context.Context, tx conclave.Tx, in *replaceIn) (*issuersConfig, error) {
	if in.Default == "" {
		in.Default = "next"
	}
	return setIssuersConfig(tx, &issuersConfigIn{Default: &in.Default})
}

func readKeysConfig(_ context.Context, view conclave.View, _ *conclave.None) (*keysConfig, error) {
	return stored.LoadOr(view, "config/keys", keysConfig{})
}

type keysConfigIn struct {
	Default string `json:"default" doc:"Id or name of the key that is used where no other is named."`
}

func writeKeysConfig(_ context.Context, tx conclave.Tx, in *keysConfigIn) (*keysConfig, error) {
	if in.Default == "" || in.Default == DefaultRef {
		return nil, conclave.Errorf(conclave.Invalid, "invalid key specification; must be non-empty and can't be 'default'")
	}
	key, err := findKey(tx, in.Default)
	if err != nil {
		return nil, err
	}
	config := keysConfig{Default: key.ID}
	return &config, stored.Put(tx, "config/keys", config)
}

// urlsOut is how clients see URLs.
type urlsOut struct {
	Issuing    []string `json:"issuing_certificates" doc:"URLs of the issuer's certificate."`
	CRL        []string `json:"crl_distribution_points" doc:"URLs of the issuer's revocation list."`
	DeltaCRL   []string `json:"delta_crl_distribution_points" doc:"URLs of the issuer's delta revocation list."`
	OCSP       []string `json:"ocsp_servers" doc:"URLs of the issuer's OCSP responder."`
	Templating bool     `json:"enable_templating" doc:"Whether the URLs hold {{issuer_id}}, {{cluster_path}} or {{cluster_aia_path}}."`
}

func readURLs(_ context.Context, view conclave.View, _ *conclave.None) (*urlsOut, error) {
	urls, err := stored.LoadOr(view, "config/urls", URLs{})
	if err != nil {
		return nil, err
	}
	return showURLs(urls), nil
}

func showURLs(urls *URLs) *urlsOut {
	listed := func(list []string) []string {
		if list == nil {
			return []string{}
		}
		return list
	}
	return &urlsOut{listed(urls.Issuing), listed(urls.CRL), listed(urls.DeltaCRL), listed(urls.OCSP), urls.Templating}
}

type urlsIn struct {
	Issuing    *[]string `json:"issuing_certificates" doc:"URLs of the issuer's certificate."`
	CRL        *[]string `json:"crl_distribution_points" doc:"URLs of the issuer's revocation list."`
	DeltaCRL   *[]string `json:"delta_crl_distribution_points" doc:"URLs of the issuer's delta revocation list."`
	OCSP       *[]string `json:"ocsp_servers" doc:"URLs of the issuer's OCSP responder."`
	Templating *bool     `json:"enable_templating" doc:"Whether the URLs hold {{issuer_id}}, {{cluster_path}} or {{cluster_aia_path}}."`
}

// merge changes what is given.
func (in *urlsIn) merge(urls *URLs) error {
	for given, into := range map[*[]string]*[]string{in.Issuing: &urls.Issuing, in.CRL: &urls.CRL, in.DeltaCRL: &urls.DeltaCRL, in.OCSP: &urls.OCSP} {
		if given != nil {
			*into = *given
		}
	}
	if in.Templating != nil {
		urls.Templating = *in.Templating
	}
	return checkURLs(urls)
}

// Limits of URLs.
const (
	maxURLs = 16
	maxURL  = 1024 // bytes
)

func checkURLs(urls *URLs) error {
	sample, err := urls.Fill("id", "https://cluster.example", "https://aia.example")
	if err != nil {
		return err
	}
	for _, list := range [][]string{sample.Issuing, sample.CRL, sample.DeltaCRL, sample.OCSP} {
		if len(list) > maxURLs {
			return conclave.Errorf(conclave.Invalid, "there are at most %d URLs of one kind", maxURLs)
		}
		for _, text := range list {
			if err := checkURL(text); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkURL(text string) error {
	parsed, err := url.Parse(text)
	strange := func(c rune) bool { return c <= ' ' || c > '~' }
	if err != nil || parsed.Scheme == "" || parsed.Host == "" && parsed.Scheme != "ldap" || len(text) > maxURL || strings.ContainsFunc(text, strange) {
		return conclave.Errorf(conclave.Invalid, "a URL that is to be put in certificates is none: it needs a scheme, a host and only ASCII")
	}
	return nil
}

func writeURLs(_ context.Context, tx conclave.Tx, in *urlsIn) (*urlsOut, error) {
	old, err := stored.LoadOr(tx, "config/urls", URLs{})
	if err != nil {
		return nil, err
	}
	urls := *old
	if err := in.merge(&urls); err != nil {
		return nil, err
	}
	return showURLs(&urls), stored.Put(tx, "config/urls", urls)
}

func readCluster(_ context.Context, view conclave.View, _ *conclave.None) (*clusterConfig, error) {
	return stored.LoadOr(view, "config/cluster", clusterConfig{})
}

type clusterIn struct {
	Path    *string `json:"path" doc:"URL of this mount, as clients of this cluster reach it: the value of {{cluster_path}}."`
	AIAPath *string `json:"aia_path" doc:"URL that is put in certificates, maybe of a server that holds copies: the value of {{cluster_aia_path}}."`
}

func writeCluster(_ context.Context, tx conclave.Tx, in *clusterIn) (*clusterConfig, error) {
	old, err := stored.LoadOr(tx, "config/cluster", clusterConfig{})
	if err != nil {
		return nil, err
	}
	config := *old
	for given, into := range map[*string]*string{in.Path: &config.Path, in.AIAPath: &config.AIAPath} {
		if given == nil {
			continue
		}
		if *given != "" {
			if err := checkURL(*given); err != nil {
				return nil, err
			}
		}
		*into = strings.TrimSuffix(*given, "/")
	}
	return &config, stored.Put(tx, "config/cluster", config)
}
