//! A spec for an executable: what it has clients for beside it, and a fault for each of these.
//!
//! Contract: a function of what was found in the executable ([`linked`](super::linked)). What a variable of its
//! environment means is a guess by its name; one that says nothing is left to whoever knows the service.

use super::linked::{Linked, Peer};
use super::{quoted, variable};

/// A service that it talks to.
struct Beside {
    /// Its name in the spec.
    name: &'static str,
    /// Its declaration.
    declared: String,
    /// What `depends_on` names.
    depends_on: &'static str,
    /// Its interface.
    interface: &'static str,
    peer: Peer,
}

/// The spec.
pub fn executable(linked: &Linked, path: &str, name: &str, port: u16) -> String {
    let beside: Vec<Beside> = linked.peers.iter().filter_map(|peer| declared(*peer, port)).collect();
    let clash = beside.iter().any(|other| other.name == variable(name));
    let name = if clash { format!("{name}-service") } else { name.to_owned() };
    let var = variable(&name);

    let mut out =
        "# A first spec: starts the executable and asks it one question. docs/language.md has the rest.\n"
            .to_owned();
    if !beside.is_empty() {
        out.push_str(
            "# What stands beside it, and its environment, are guesses by what it is linked with.\n",
        );
    }
    if linked.peers.contains(&Peer::Issuer) {
        out.push_str("\nload(\"@faultbox/mocks/jwt.star\", \"jwt\")\n");
    }
    if linked.peers.contains(&Peer::Grpc) {
        out.push_str(
            "\n# It knows gRPC. A service that it calls is a mock out of a descriptor set (protoc --descriptor_set_out):\n\
             # load(\"@faultbox/mocks/grpc.star\", \"grpc\"), then grpc.server(...).\n",
        );
    }
    if linked.peers.contains(&Peer::MySql) {
        out.push_str("\npassword = secret(\"faultbox\")\n");
    }
    beside.iter().for_each(|other| out.push_str(&format!("\n{}\n", other.declared)));
    out.push_str(&format!(
        "\n{var} = service({}, binary = {},\n    interface(\"main\", \"http\", {port}),\n{}",
        quoted(&name),
        quoted(path),
        environment(linked, &beside)
    ));
    if !beside.is_empty() {
        let names: Vec<&str> = beside.iter().map(|other| other.depends_on).collect();
        out.push_str(&format!("    depends_on = [{}],\n", names.join(", ")));
    }
    out.push_str(&format!(
        "    healthcheck = tcp(\"localhost:{port}\"),\n)\n\n\
         def answers():\n    return step({var}.main, \"get\", path = \"/\")\n\n\
         def test_answers():\n    response = answers()\n    \
         assert_true(response.status_code > 0, \"no answer: %s\" % response.error)\n"
    ));
    out.push_str(&faults(&beside));
    out
}

fn declared(peer: Peer, port: u16) -> Option<Beside> {
    let image = |name: &str, image: &str, interface: &str, more: &str| {
        format!(
            "{name} = service(\"{name}\", image = \"{image}\",\n    interface(\"main\", {interface}),\n{more}    \
             healthcheck = ready(),\n)"
        )
    };
    let beside = match peer {
        Peer::MySql => Beside {
            peer,
            name: "db",
            declared: image(
                "db",
                "mysql:8.0.32",
                "\"mysql\", 3306",
                "    env = {\"MYSQL_ROOT_PASSWORD\": password, \"MYSQL_DATABASE\": \"app\"},\n",
            ),
            depends_on: "db",
            interface: "db.main",
        },
        Peer::Redis => Beside {
            peer,
            name: "cache",
            declared: image("cache", "redis:7-alpine", "\"redis\", 6379", ""),
            depends_on: "cache",
            interface: "cache.main",
        },
        Peer::Kafka => Beside {
            peer,
            name: "bus",
            declared: image("bus", "apache/kafka:3.7.0", "\"kafka\", 9092", ""),
            depends_on: "bus",
            interface: "bus.main",
        },
        Peer::Issuer => {
            // On hosts without namespaces both are on one loopback.
            let port = if port == 8090 { 8091 } else { 8090 };
            Beside {
                peer,
                name: "auth",
                declared: format!(
                    "auth = jwt.server(\n    name = \"auth\",\n    interface = interface(\"main\", \"http\", {port}),\n    \
                     issuer = \"https://issuer.invalid\",\n)"
                ),
                depends_on: "auth.service",
                interface: "auth.service.main",
            }
        }
        Peer::Grpc => return None,
    };
    Some(beside)
}

fn environment(linked: &Linked, beside: &[Beside]) -> String {
    if linked.variables.is_empty() {
        return "    # What it reads from its environment: addresses of its dependencies as db.main.addr.\n    env = {},\n".to_owned();
    }
    let mut out = "    env = {\n".to_owned();
    for variable in &linked.variables {
        let about = |other: &&Beside| variable.split('_').any(|part| other.peer.words().contains(&part));
        match beside.iter().find(about) {
            Some(other) => {
                out.push_str(&format!("        {}: {},\n", quoted(variable), value(variable, other)))
            }
            None => out.push_str(&format!("        # {}: \"\",\n", quoted(variable))),
        }
    }
    out.push_str("    },\n");
    out
}

/// What a variable of this name is to hold.
fn value(variable: &str, about: &Beside) -> String {
    let Beside { name, interface, .. } = about;
    let ends = |ends: &[&str]| ends.iter().any(|end| variable.ends_with(end));
    match *name {
        "db" if ends(&["_DSN"]) => format!("\"root:%s@tcp(%s)/app\" % (password, {interface}.addr)"),
        "db" if ends(&["_URL", "_URI"]) => {
            format!("\"mysql://root:%s@%s/app\" % (password, {interface}.addr)")
        }
        "cache" if ends(&["_URL", "_URI"]) => format!("\"redis://%s\" % {interface}.addr"),
        "auth" if variable.contains("JWKS") => format!("{interface}.url + \"/.well-known/jwks.json\""),
        "auth" => format!("{interface}.url"),
        _ if ends(&["_HOST"]) => format!("{interface}.host"),
        _ => format!("{interface}.addr"),
    }
}

/// Each of them gone, and what is wanted then: an answer in time.
fn faults(beside: &[Beside]) -> String {
    if beside.is_empty() {
        return String::new();
    }
    let mut out = "\n# A scenario that uses them makes these faults fire.\n".to_owned();
    for Beside { name, interface, .. } in beside {
        out.push_str(&format!(
            "{name}_down = fault_assumption(\"{name}_down\", target = {interface}, rules = [drop()])\n"
        ));
    }
    let names: Vec<String> = beside.iter().map(|other| format!("{}_down", other.name)).collect();
    out.push_str(&format!(
        "\nfault_matrix(\n    scenarios = [answers],\n    faults = [{}],\n    \
         default_expect = expect_any(expect_success(), expect_error_within(ms = 5000)),\n)\n",
        names.join(", ")
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_variables_hold_goes_by_their_names() {
        let beside: Vec<Beside> = [Peer::MySql, Peer::Redis, Peer::Issuer]
            .into_iter()
            .filter_map(|peer| declared(peer, 8090))
            .collect();
        let value = |place: usize, name: &str| value(name, &beside[place]);
        assert_eq!(value(0, "DB_DSN"), "\"root:%s@tcp(%s)/app\" % (password, db.main.addr)");
        assert_eq!(value(0, "DATABASE_HOST"), "db.main.host");
        assert_eq!(value(1, "REDIS_ADDR"), "cache.main.addr");
        assert_eq!(value(2, "OIDC_JWKS_URL"), "auth.service.main.url + \"/.well-known/jwks.json\"");
        assert!(beside[2].declared.contains("8091"));
    }

    #[test]
    fn without_a_client_there_is_only_the_executable() {
        let spec = executable(&Linked::default(), "./x", "x", 1);
        assert!(!spec.contains("fault_matrix") && spec.contains("env = {},"), "{spec}");
        let clash = Linked { peers: [Peer::MySql].into(), ..Linked::default() };
        assert!(executable(&clash, "./db", "db", 1).contains("db_service = service(\"db-service\""));
    }
}
