//! The environment, read once at the start.
//!
//! Contract: an address without a scheme gets the one its reader needs, a URL is left alone; what is
//! missing or makes no sense is refused with the variable's name.

use mysql_async::Opts;

/// What the environment says.
#[derive(Debug, Clone)]
pub struct Config {
    /// `DATABASE_URL`.
    pub database: Opts,
    /// `REDIS_URL`, with a scheme.
    pub redis: String,
    /// `KAFKA_BROKERS`.
    pub brokers: String,
    /// `GEO_CONFIG_ADDR`, with a scheme.
    pub geo: String,
    /// `USER_SERVICE_ADDR`, with a scheme.
    pub users: String,
    /// `BALANCE_API_ADDR`, with a scheme.
    pub balance: String,
    /// `OIDC_ISSUER`, with a scheme: where the discovery document is.
    pub issuer: String,
    /// `OIDC_JWKS_URL`, with a scheme.
    pub jwks: String,
    /// `EVENTS_TOPIC`: what the consumer listens to; unless set, what this service publishes.
    pub events: Option<String>,
    /// `ORDERS_BUG`.
    pub bug: Option<Bug>,
}

/// The planted defects. Each is an incident that somebody has had; `specs/orders/README.md` says which
/// cells each turns red.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A database error leaks the connection, and the retry waits for one without end.
    DbPoison,
    /// `/healthz` asks the database.
    DbSlowHealth,
    /// The order routes ask user-service first and fail with it.
    AuthCascade,
    /// An order waits for the event bus without end.
    BusBlock,
    /// The consumer of events ends for good when a rebalance overtakes a commit.
    RebalanceStop,
}

/// Why the environment is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Not set, or empty.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// Set to something else.
    #[error("{name} is {value:?}: {why}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Config {
    /// Reads the configuration through `get`.
    ///
    /// # Errors
    /// When a variable is missing or makes no sense.
    pub fn read(get: impl Fn(&'static str) -> Option<String>) -> Result<Config, ConfigError> {
        let need = |name| get(name).filter(|v| !v.is_empty()).ok_or(ConfigError::Missing(name));
        let url = need("DATABASE_URL")?;
        let database = Opts::from_url(&with_scheme("mysql", &url)).map_err(|error| ConfigError::Invalid {
            name: "DATABASE_URL",
            // The value holds a password.
            value: "...".into(),
            why: error.to_string(),
        })?;
        Ok(Config {
            database,
            redis: with_scheme("redis", &need("REDIS_URL")?),
            brokers: need("KAFKA_BROKERS")?,
            geo: with_scheme("http", &need("GEO_CONFIG_ADDR")?),
            users: with_scheme("http", &need("USER_SERVICE_ADDR")?),
            balance: with_scheme("http", &need("BALANCE_API_ADDR")?),
            issuer: with_scheme("http", &need("OIDC_ISSUER")?),
            jwks: with_scheme("http", &need("OIDC_JWKS_URL")?),
            events: get("EVENTS_TOPIC").filter(|v| !v.is_empty()),
            bug: get("ORDERS_BUG").filter(|v| !v.is_empty()).map(Bug::parse).transpose()?,
        })
    }
}

impl Bug {
    fn parse(value: String) -> Result<Bug, ConfigError> {
        match value.as_str() {
            "db-poison" => Ok(Bug::DbPoison),
            "db-slow-health" => Ok(Bug::DbSlowHealth),
            "auth-cascade" => Ok(Bug::AuthCascade),
            "bus-block" => Ok(Bug::BusBlock),
            "rebalance-stop" => Ok(Bug::RebalanceStop),
            _ => Err(ConfigError::Invalid {
                name: "ORDERS_BUG",
                value,
                why: "it is one of db-poison, db-slow-health, auth-cascade, bus-block, rebalance-stop".into(),
            }),
        }
    }
}

/// `value` as a URL: addresses and URLs are both accepted wherever a URL is needed.
fn with_scheme(scheme: &str, value: &str) -> String {
    if value.contains("://") { value.to_owned() } else { format!("{scheme}://{value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &'static str) -> Option<String> {
        let value = match name {
            "DATABASE_URL" => "mysql://root:test@127.0.0.1:3306/appdb",
            "ORDERS_BUG" => "",
            "OIDC_ISSUER" => "https://issuer.example",
            _ => "127.0.0.1:9000",
        };
        Some(value.to_owned())
    }

    #[test]
    fn addresses_get_a_scheme_and_urls_keep_theirs() {
        let config = Config::read(env).expect("a complete environment");
        assert_eq!(config.redis, "redis://127.0.0.1:9000");
        assert_eq!(config.geo, "http://127.0.0.1:9000");
        assert_eq!(config.issuer, "https://issuer.example");
        assert_eq!(config.brokers, "127.0.0.1:9000");
        assert_eq!(config.bug, None);
        assert_eq!(config.database.db_name(), Some("appdb"));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let missing = Config::read(|name| env(name).filter(|_| name != "KAFKA_BROKERS"));
        assert_eq!(missing.err(), Some(ConfigError::Missing("KAFKA_BROKERS")));
        let unknown = Config::read(|name| if name == "ORDERS_BUG" { Some("x".into()) } else { env(name) });
        assert!(matches!(unknown, Err(ConfigError::Invalid { name: "ORDERS_BUG", .. })));
    }
}
