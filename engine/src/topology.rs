//! Topology: services, interfaces and what they depend on. Pure data, made by the spec.

use crate::protocol::Protocol;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// All services of a spec, in order of declaration.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    /// The services.
    pub services: Vec<Service>,
}

impl Topology {
    /// The services' names.
    pub fn names(&self) -> Vec<String> {
        self.services.iter().map(|service| service.name.clone()).collect()
    }

    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The interface whose address the spec saw as `addr`.
    pub fn interface_at(&self, addr: &str) -> Option<String> {
        self.services.iter().find_map(|service| {
            let interface = service.interfaces.iter().find(|interface| interface.addr == addr)?;
            Some(format!("{}.{}", service.name, interface.name))
        })
    }

    /// Whether `asker` may connect to `asked`: it depends on it, or its environment names
    /// one of its addresses, by number or by the service's name.
    pub fn asks(&self, asker: &str, asked: &str) -> bool {
        let (Some(asker), Some(asked)) = (self.service(asker), self.service(asked)) else { return false };
        let named = |interface: &Interface| {
            let port = interface.addr.rsplit(':').next().unwrap_or_default();
            let by_name = format!("{}:{port}", asked.name);
            asker.env.iter().any(|(_, value)| value.contains(&interface.addr) || value.contains(&by_name))
        };
        asker.name != asked.name
            && (asker.depends_on.contains(&asked.name) || asked.interfaces.iter().any(named))
    }

    /// The service under test: the first of [`Topology::suts`].
    pub fn sut(&self) -> Option<&Service> {
        self.suts().next()
    }

    /// The services under test: those with a binary or a `build=` on which no other service depends.
    /// Several are a fleet: what holds for the service under test holds for each of them.
    ///
    /// Where there is none, an `image=` is one that nobody asks and that asks another service or
    /// speaks HTTP or gRPC. A container with `reuse` is never one: it is put back, not started anew.
    pub fn suts(&self) -> impl Iterator<Item = &Service> {
        let own = |service: &Service| match service.kind {
            ServiceKind::Binary { .. } => !self.is_depended_on(&service.name),
            ServiceKind::Build { .. } => !service.reuse && !self.is_asked(&service.name),
            _ => false,
        };
        let foreign = |service: &Service| {
            let speaks = |i: &Interface| matches!(i.protocol.name(), "http" | "http2" | "grpc");
            let asks = || self.services.iter().any(|other| self.asks(&service.name, &other.name));
            matches!(service.kind, ServiceKind::Image(_))
                && !service.reuse
                && !self.is_asked(&service.name)
                && (service.interfaces.iter().any(speaks) || asks())
        };
        let any_own = self.services.iter().any(own);
        self.services.iter().filter(move |service| if any_own { own(service) } else { foreign(service) })
    }

    fn is_depended_on(&self, name: &str) -> bool {
        self.services.iter().any(|service| service.depends_on.iter().any(|d| d == name))
    }

    fn is_asked(&self, name: &str) -> bool {
        self.services.iter().any(|service| self.asks(&service.name, name))
    }

    /// Whether this is a service under test.
    pub fn is_sut(&self, name: &str) -> bool {
        self.suts().any(|sut| sut.name == name)
    }

    /// Services in an order in which each comes after what it depends on. Cycles are refused
    /// at load.
    pub fn start_order(&self) -> Vec<&Service> {
        let mut order: Vec<&Service> = Vec::new();
        while order.len() < self.services.len() {
            let before = order.len();
            for service in &self.services {
                let started = |name: &str| order.iter().any(|s| s.name == name);
                if !started(&service.name) && service.depends_on.iter().all(|d| started(d)) {
                    order.push(service);
                }
            }
            if order.len() == before {
                break;
            }
        }
        order
    }
}

impl Service {
    /// Whether it runs in a container (or a stand-in takes its place).
    pub fn is_contained(&self) -> bool {
        matches!(self.kind, ServiceKind::Image(_) | ServiceKind::Build { .. })
    }
}

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What runs.
    pub kind: ServiceKind,
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Its environment, as written (addresses already in place).
    pub env: Vec<(String, String)>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Names of what must be ready before it starts.
    pub depends_on: Vec<String>,
    /// How it says that it is ready.
    pub healthcheck: Option<Healthcheck>,
    /// Whether it has a `seed` callable (run once a cold start).
    pub has_seed: bool,
    /// What happens between cells to a reused service.
    pub reset: Reset,
    /// Whether it is kept between cells.
    pub reuse: bool,
    /// Volumes, `source:target` or `source:target:ro`, the source absolute.
    pub volumes: Vec<String>,
    /// Pinned host ports, `interface -> port`.
    pub ports: Vec<(String, u16)>,
    /// Working directory, absolute.
    pub cwd: Option<PathBuf>,
    /// Whether syscall faults may be planned for it (`seccomp=`).
    pub seccomp: bool,
    /// Whose clock and dice it has.
    pub determinism: Determinism,
    /// `file:line` of its declaration.
    pub location: String,
}

/// Which of a service's sources of accident follow from the seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Determinism {
    /// Its wall clock.
    pub clock: bool,
    /// Its randomness.
    pub entropy: bool,
    /// Its process ids.
    pub pids: bool,
    /// Whether what it asks the host is told of.
    pub watched: bool,
}

/// What runs.
#[derive(Debug, Clone)]
pub enum ServiceKind {
    /// A local executable.
    Binary {
        /// As written in the spec.
        written: String,
        /// Absolute path.
        path: PathBuf,
    },
    /// A container image.
    Image(String),
    /// An image built from a folder with a Dockerfile.
    Build {
        /// As written in the spec.
        written: String,
        /// Absolute path.
        folder: PathBuf,
    },
    /// A server somewhere else, which Faultbox neither starts nor stops.
    Remote(Remote),
    /// A mock inside Faultbox.
    Mock(Arc<dyn crate::mock::Mock>),
}

/// Where a remote service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Name or address of its host, without brackets.
    pub host: String,
    /// The port that stands for the declared one.
    pub port: Option<u16>,
}

impl Remote {
    /// `host`, `host:port` or `[address]:port`; nothing else, and so no URL.
    pub fn parse(written: &str) -> Option<Remote> {
        let (host, port) = match written.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match written.split_once(':') {
                // Several colons: an IPv6 address alone.
                Some((_, rest)) if rest.contains(':') => (written, None),
                Some((host, port)) => (host, Some(port)),
                None => (written, None),
            },
        };
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
            None => None,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        let known = !host.is_empty() && host.chars().all(plain);
        let address = !host.contains(':') || host.parse::<std::net::Ipv6Addr>().is_ok();
        (known && address).then(|| Remote { host: host.to_owned(), port })
    }

    /// Where the interface with this declared port listens.
    pub fn address_of(&self, declared: u16) -> String {
        Remote { port: self.port.or(Some(declared)), ..self.clone() }.to_string()
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => f.write_str(&self.host),
        }
    }
}

impl ServiceKind {
    /// `image mysql:8`, as people read it.
    pub fn words(&self) -> String {
        match self {
            ServiceKind::Binary { written, .. } => format!("binary {written}"),
            ServiceKind::Image(image) => format!("image {image}"),
            ServiceKind::Build { written, .. } => format!("build {written}"),
            ServiceKind::Remote(remote) => format!("remote {remote}"),
            ServiceKind::Mock(mock) => format!("{} mock", mock.kind()),
        }
    }
}

/// What happens between cells to a reused service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Back to the state just after `seed`.
    Default,
    /// The spec's callable.
    Callable,
    /// `reset = None`: left as it is.
    Leave,
}

/// An interface of a service.
#[derive(Clone)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: &'static dyn Protocol,
    /// The declared port: where the service listens, in a network of its own.
    pub port: u16,
    /// `host:port` that the spec saw as `.addr`.
    pub addr: String,
}

impl std::fmt::Debug for Interface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{} at {}", self.name, self.protocol.name(), self.port, self.addr)
    }
}

/// A health check. Addresses name the declared port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// What is asked.
    pub probe: Probe,
    /// How long it may take in all.
    pub timeout: Duration,
    /// Pause between attempts; `None` lets them grow from short ones.
    pub interval: Option<Duration>,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The port answers; on a known protocol the server speaks.
    Tcp {
        /// Declared port.
        port: u16,
    },
    /// An HTTP GET.
    Http {
        /// Declared port.
        port: u16,
        /// Path and query.
        path: String,
        /// Status that means ready.
        expect_status: Option<u16>,
        /// Text that the body must contain.
        expect_body: Option<String>,
    },
    /// The protocol's own readiness on every interface (`ready()`, `kafka_ready(addr)`).
    Protocol {
        /// Declared port, `None` for every interface.
        port: Option<u16>,
    },
    /// A command that exits with 0.
    Exec(Vec<String>),
    /// A line of output that matches this regular expression.
    Log(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_service_is_a_host_and_perhaps_a_port() {
        let at = |written: &str| Remote::parse(written).map(|remote| remote.address_of(3306));
        assert_eq!(at("db.staging").as_deref(), Some("db.staging:3306"));
        assert_eq!(at("10.0.0.7:3307").as_deref(), Some("10.0.0.7:3307"));
        assert_eq!(at("::1").as_deref(), Some("[::1]:3306"));
        assert_eq!(at("[::1]:3307").as_deref(), Some("[::1]:3307"));
        for written in
            ["", ":1", "db:", "db:0", "db:65536", "mysql://db:3306", "[::1", "a b", "db/x", "1:2:x"]
        {
            assert_eq!(at(written), None, "{written}");
        }
    }
}
