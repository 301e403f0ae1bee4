//! What an executable is linked with, and what it seems to read from its environment, out of its bytes.
//!
//! Sources: the build information that Go's linker writes (`dep`, a path and a version a line; pkg.go.dev/debug/buildinfo),
//! the places of crates' sources that Rust keeps for panics, names of shared libraries.
//!
//! Contract: a guess, in an order that does not hang on the file's. What is not found is not missing: a stripped
//! executable says less, and a name of a variable can be made up of parts.

use regex::bytes::Regex;
use std::collections::BTreeSet;

/// What a service talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// A MySQL server.
    MySql,
    /// A Redis server.
    Redis,
    /// A Kafka broker.
    Kafka,
    /// An issuer of tokens.
    Issuer,
    /// gRPC services.
    Grpc,
}

use Peer::{Grpc, Issuer, Kafka, MySql, Redis};

impl Peer {
    const ALL: [Peer; 5] = [MySql, Redis, Kafka, Issuer, Grpc];

    /// Words in names of variables that are about it.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            MySql => &["DATABASE", "MYSQL", "MARIADB", "DB"],
            Redis => &["REDIS", "CACHE", "VALKEY"],
            Kafka => &["KAFKA", "BROKERS", "BOOTSTRAP"],
            Issuer => &["ISSUER", "JWKS", "OIDC", "JWT"],
            Grpc => &[],
        }
    }
}

/// Go modules, by their paths without a major version.
const MODULES: &[(&str, Peer)] = &[
    ("github.com/go-sql-driver/mysql", MySql),
    ("github.com/redis/go-redis", Redis),
    ("github.com/go-redis/redis", Redis),
    ("github.com/gomodule/redigo", Redis),
    ("github.com/redis/rueidis", Redis),
    ("github.com/twmb/franz-go", Kafka),
    ("github.com/IBM/sarama", Kafka),
    ("github.com/Shopify/sarama", Kafka),
    ("github.com/segmentio/kafka-go", Kafka),
    ("github.com/confluentinc/confluent-kafka-go", Kafka),
    ("github.com/golang-jwt/jwt", Issuer),
    ("github.com/lestrrat-go/jwx", Issuer),
    ("github.com/coreos/go-oidc", Issuer),
    ("google.golang.org/grpc", Grpc),
];

/// Crates.
const CRATES: &[(&str, Peer)] = &[
    ("mysql", MySql),
    ("mysql_async", MySql),
    ("mysql_common", MySql),
    ("sqlx-mysql", MySql),
    ("redis", Redis),
    ("fred", Redis),
    ("rdkafka", Kafka),
    ("rskafka", Kafka),
    ("kafka", Kafka),
    ("jsonwebtoken", Issuer),
    ("openidconnect", Issuer),
    ("tonic", Grpc),
];

/// Shared libraries, and what a static one says of itself.
const LIBRARIES: &[(&str, Peer)] = &[
    ("libmysqlclient.so", MySql),
    ("libmariadb.so", MySql),
    ("libhiredis.so", Redis),
    ("librdkafka", Kafka),
    ("libgrpc++.so", Grpc),
];

/// How names of variables end that hold where something is.
const PLACES: &str =
    "ADDRESSES|ADDRESS|ADDRS|ADDR|BOOTSTRAP_SERVERS|BROKERS|DSN|ENDPOINT|HOST|ISSUER|URI|URL";

/// Beginnings of names that belong to libraries: numbers of errors of MySQL and Kafka, headers of CGI, gRPC's own.
const FOREIGN: &[&str] = &[
    "ALL_",
    "BROKER_ID",
    "CR_",
    "ER_",
    "ERR_",
    "GO",
    "GRPC_",
    "HTTP_",
    "RD_KAFKA",
    "REMOTE_",
    "SERVER_",
    "SSL_",
];

/// Longest name of a variable: what is longer is several texts.
const LONGEST: usize = 30;
/// Fewest letters of a word that says by itself where a name begins.
const TELLING: usize = 4;
/// Most names of variables.
const MOST: usize = 20;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// What it has a client for.
    pub peers: BTreeSet<Peer>,
    /// Names of variables that seem to hold where something is, sorted.
    pub variables: BTreeSet<String>,
}

/// Looks through an executable.
pub fn linked(content: &[u8]) -> Linked {
    let mut found = Linked::default();
    let modules = pattern(r"\ndep\t([!-~]{3,200})\t");
    let crates = pattern(r"/registry/src/[!-.0-~]{1,100}/([a-z0-9_-]{1,64})-[0-9]+\.[0-9]+\.[0-9]+");
    for path in names(&modules, content) {
        let is = |module: &str| {
            path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        found.peers.extend(MODULES.iter().filter(|(module, _)| is(module)).map(|(_, peer)| *peer));
    }
    for name in names(&crates, content) {
        found.peers.extend(CRATES.iter().filter(|(known, _)| *known == name).map(|(_, peer)| *peer));
    }
    for (library, peer) in LIBRARIES {
        if names(&pattern(&format!("({})", regex::escape(library))), content).next().is_some() {
            found.peers.insert(*peer);
        }
    }
    // Texts are kept without anything between them: a name can begin right behind another text.
    let variables = pattern(&format!(r"([A-Z][A-Z0-9]{{1,24}}(?:_[A-Z0-9]{{1,24}}){{0,4}}?_(?:{PLACES}))"));
    let own = |name: &&str| name.len() <= LONGEST && !FOREIGN.iter().any(|foreign| name.starts_with(foreign));
    let named: BTreeSet<&str> = names(&variables, content).map(from_topic).filter(own).collect();
    found.variables = named.into_iter().take(MOST).map(str::to_owned).collect();
    found
}

/// A name from where a word that is known begins, if that is in the middle of a part: `BUGDATABASE_URL` is the end of
/// another text and `DATABASE_URL`.
fn from_topic(name: &str) -> &str {
    let mut begin = 0;
    let topics = || Peer::ALL.iter().flat_map(|peer| peer.words()).filter(|word| word.len() >= TELLING);
    for part in name.split('_') {
        let topic = topics().find(|topic| part.len() > topic.len() && part.ends_with(**topic));
        if let Some(cut) = topic.and_then(|topic| name.get(begin + part.len() - topic.len()..)) {
            return cut;
        }
        begin += part.len() + 1;
    }
    name
}

/// What a pattern's only group holds, wherever it matches.
fn names<'a>(pattern: &'a Option<Regex>, content: &'a [u8]) -> impl Iterator<Item = &'a str> {
    let found = pattern.iter().flat_map(|pattern| pattern.captures_iter(content));
    found.filter_map(|found| std::str::from_utf8(found.get(1)?.as_bytes()).ok())
}

/// The patterns are ours: they are right.
fn pattern(text: &str) -> Option<Regex> {
    regex::bytes::RegexBuilder::new(text).unicode(false).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_executable_by_its_modules() {
        let content =
            b"\x7fELF\x00path\tx\nmod\tx\t(devel)\t\ndep\tgithub.com/go-sql-driver/mysql\tv1.10.1\th1:a=\n\
            dep\tgithub.com/redis/go-redis/v9\tv9.1.0\th1:b=\ndep\tgoogle.golang.org/grpcx\tv1\th1:c=\n\x00\
            KAFKA_BROKERSOIDC_JWKS_URLDATABASE_URLunexpectedGRPC_XDS_ENDPOINT";
        let found = linked(content);
        assert_eq!(found.peers, [MySql, Redis].into());
        let names: Vec<&str> = found.variables.iter().map(String::as_str).collect();
        assert_eq!(names, ["DATABASE_URL", "KAFKA_BROKERS", "OIDC_JWKS_URL"]);
    }

    #[test]
    fn a_rust_executable_by_the_places_of_its_crates() {
        let content = b"/home/a/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/rdkafka-0.38.0/src/client.rs\x00\
            /registry/src/x/tonic-prost-0.14.2/src/lib.rs\x00/registry/src/x/redis-test-1.0.0/x/registry/src/y/mysql_async-0.36.1/";
        assert_eq!(linked(content).peers, [MySql, Kafka].into());
        assert_eq!(linked(b"libhiredis.so.1.1.0\x00libgrpc++.so.1").peers, [Redis, Grpc].into());
        assert_eq!(linked(&[0xff; 100]), Linked::default());
        for (found, name) in [
            ("ORDERS_BUGDATABASE_URL", "DATABASE_URL"),
            ("XREDIS_URL", "REDIS_URL"),
            ("APP_DATABASE_URL", "APP_DATABASE_URL"),
            ("GEO_CONFIG_ADDR", "GEO_CONFIG_ADDR"),
        ] {
            assert_eq!(from_topic(found), name);
        }
    }
}
