//! A compose file as a spec.
//!
//! Contract: services with an `image` or a `build` folder, their `environment`, `depends_on` and ports. `host:port` of
//! another service in a variable becomes the address of its proxy. The rest of the file is not looked at.

use super::{InitError, quoted, variable};
use serde_yaml_ng::Value as Yaml;

/// Images that are known: part of the name, protocol, port, and the step that a first test makes.
const KNOWN: &[(&str, &str, u16, &str)] = &[
    ("mysql", "mysql", 3306, "step({}, \"query\", sql = \"SELECT 1\")"),
    ("mariadb", "mysql", 3306, "step({}, \"query\", sql = \"SELECT 1\")"),
    ("redis", "redis", 6379, "step({}, \"get\", key = \"faultbox\")"),
    ("valkey", "redis", 6379, "step({}, \"get\", key = \"faultbox\")"),
    ("kafka", "kafka", 9092, "step({}, \"publish\", topic = \"faultbox\", value = \"hello\")"),
];
const HTTP: &str = "step({}, \"get\", path = \"/\")";

struct Service {
    name: String,
    source: String,
    protocol: &'static str,
    port: u16,
    step: &'static str,
    env: Vec<(String, String)>,
    depends_on: Vec<String>,
}

/// The spec, or why there is none; `None` where this is no compose file.
pub fn compose(text: &str) -> Option<Result<String, InitError>> {
    let document: Yaml = serde_yaml_ng::from_str(text).ok()?;
    let listed = document.get("services")?.as_mapping()?;
    let services: Vec<Service> =
        listed.iter().filter_map(|(name, service)| read(name.as_str()?, service)).collect();
    if services.is_empty() {
        return Some(Err(InitError::NoServices));
    }
    let left: Vec<&str> =
        listed.keys().filter_map(Yaml::as_str).filter(|n| services.iter().all(|s| s.name != *n)).collect();
    let mut out = "# A first spec, out of a compose file. docs/language.md has the rest.\n".to_owned();
    if !left.is_empty() {
        out.push_str(&format!(
            "# Not in it, since they have neither an image nor a build folder: {}\n",
            left.join(", ")
        ));
    }
    let ordered = ordered(&services);
    ordered.iter().for_each(|service| out.push_str(&declared(service, &ordered)));
    for service in &ordered {
        let var = variable(&service.name);
        let step = service.step.replace("{}", &format!("{var}.main"));
        let asserted = match service.protocol {
            "http" => {
                format!("assert_true(response.status_code > 0, \"{var}: no answer: %s\" % response.error)")
            }
            _ => format!("assert_true(response.ok, \"{var}: %s\" % response.error)"),
        };
        out.push_str(&format!("\ndef test_{var}_answers():\n    response = {step}\n    {asserted}\n"));
    }
    Some(Ok(out))
}

fn read(name: &str, service: &Yaml) -> Option<Service> {
    let build = service
        .get("build")
        .map(|build| build.as_str().or_else(|| build.get("context")?.as_str()).unwrap_or("."));
    let image = service.get("image").and_then(Yaml::as_str);
    let source = match (build, image) {
        (Some(folder), _) => format!("build = {}", quoted(folder)),
        (None, Some(image)) => format!("image = {}", quoted(image)),
        (None, None) => return None,
    };
    let known = image.filter(|_| build.is_none()).and_then(|image| {
        let plain = image.rsplit('/').next().unwrap_or(image);
        KNOWN.iter().find(|(part, ..)| plain.split([':', '@']).next().is_some_and(|name| name.contains(part)))
    });
    let (_, protocol, port, step) = *known.unwrap_or(&("", "http", 0, HTTP));
    let ports = service.get("ports").or_else(|| service.get("expose")).and_then(Yaml::as_sequence);
    let port =
        if port != 0 { port } else { ports.and_then(|p| p.first()).and_then(inner_port).unwrap_or(8080) };
    let depends_on = match service.get("depends_on") {
        Some(Yaml::Sequence(names)) => names.iter().filter_map(Yaml::as_str).map(str::to_owned).collect(),
        Some(Yaml::Mapping(names)) => names.keys().filter_map(Yaml::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let env = environment(service.get("environment"));
    Some(Service { name: name.to_owned(), source, protocol, port, step, env, depends_on })
}

/// The port inside of a container: of `8080`, `80:8080`, `127.0.0.1:80:8080/tcp`, `{target: 8080}`.
fn inner_port(port: &Yaml) -> Option<u16> {
    if let Some(target) = port.get("target").or(Some(port)).and_then(Yaml::as_u64) {
        return u16::try_from(target).ok();
    }
    port.as_str()?.split('/').next()?.rsplit(':').next()?.parse().ok()
}

fn environment(listed: Option<&Yaml>) -> Vec<(String, String)> {
    let text = |value: &Yaml| match value {
        Yaml::String(text) => text.clone(),
        Yaml::Null => String::new(),
        other => serde_yaml_ng::to_string(other).unwrap_or_default().trim().to_owned(),
    };
    match listed {
        Some(Yaml::Mapping(pairs)) => {
            pairs.iter().filter_map(|(name, value)| Some((name.as_str()?.to_owned(), text(value)))).collect()
        }
        Some(Yaml::Sequence(pairs)) => {
            let pairs = pairs.iter().filter_map(Yaml::as_str).filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        }
        _ => Vec::new(),
    }
}

/// What others depend on first; what is in a circle keeps its place.
fn ordered(services: &[Service]) -> Vec<&Service> {
    let mut out: Vec<&Service> = Vec::new();
    while out.len() < services.len() {
        let left = || services.iter().filter(|s| out.iter().all(|done| done.name != s.name));
        let needs = |s: &Service, other: &Service| {
            s.name != other.name
                && (s.depends_on.contains(&other.name)
                    || s.env.iter().any(|(_, text)| text.contains(&address(other))))
        };
        let free = left().find(|s| !left().any(|other| needs(s, other)));
        let Some(next) = free.or_else(|| left().next()) else { break };
        out.push(next);
    }
    out
}

fn address(service: &Service) -> String {
    format!("{}:{}", service.name, service.port)
}

fn declared(service: &Service, all: &[&Service]) -> String {
    let before: Vec<&&Service> = all.iter().take_while(|other| other.name != service.name).collect();
    let Service { name, source, protocol, port, .. } = service;
    let (var, name) = (variable(name), quoted(name));
    let mut out =
        format!("\n{var} = service({name}, {source},\n    interface(\"main\", \"{protocol}\", {port}),\n");
    if !service.env.is_empty() {
        out.push_str("    env = {\n");
        for (key, text) in &service.env {
            let mut value = quoted(text);
            for other in &before {
                // The name in front is whole: `mydb:3306` is not `db:3306`.
                let addr = format!("\" + {}.main.addr + \"", variable(&other.name));
                value = replaced(&value, &address(other), &addr);
            }
            let value = value.replace("\"\" + ", "").replace(" + \"\"", "");
            out.push_str(&format!("        {}: {value},\n", quoted(key)));
        }
        out.push_str("    },\n");
    }
    let needed: Vec<String> = before
        .iter()
        .filter(|other| service.depends_on.contains(&other.name))
        .map(|other| variable(&other.name))
        .collect();
    if !needed.is_empty() {
        out.push_str(&format!("    depends_on = [{}],\n", needed.join(", ")));
    }
    let check = match *protocol {
        "http" => format!("tcp(\"localhost:{port}\")"),
        _ => "ready()".to_owned(),
    };
    out.push_str(&format!("    healthcheck = {check},\n)\n"));
    out
}

/// The text with an address replaced wherever it stands as a whole.
fn replaced(text: &str, address: &str, with: &str) -> String {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(address) {
        let (before, found) = rest.split_at(at);
        let after = &found[address.len()..];
        let whole = !before.ends_with(part) && !after.starts_with(|c: char| c.is_ascii_digit());
        out.push_str(before);
        out.push_str(if whole { with } else { address });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_those_of_proxies() {
        let text = "services:\n  api:\n    build: .\n    ports: ['80:9000/tcp']\n    environment:\n      - DB=mysql://root:x@db:3306/app?a=%s\n      - OTHER=mydb:3306\n    depends_on: [db]\n  db:\n    image: mysql:8\n    environment: {MYSQL_ROOT_PASSWORD: x, N: 1}\n  odd: {}\n";
        let spec = compose(text).unwrap().unwrap();
        assert!(spec.contains("\"DB\": \"mysql://root:x@\" + db.main.addr + \"/app?a=%s\",\n"), "{spec}");
        assert!(spec.contains("\"OTHER\": \"mydb:3306\""), "{spec}");
        assert!(spec.contains("interface(\"main\", \"http\", 9000)"), "{spec}");
        assert!(spec.contains("\"N\": \"1\""), "{spec}");
        assert!(spec.find("db = service").unwrap() < spec.find("api = service").unwrap(), "{spec}");
        assert!(spec.contains("build folder: odd\n"), "{spec}");
        assert!(compose("a: b").is_none());
    }
}
