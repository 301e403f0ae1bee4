//! What Faultbox and the shim say to each other. The shim compiles this file, and so do
//! the engine's tests.
//!
//! Contract: pure; the shim's reports are the JSON that the control channel of a local service
//! carries, so that one attendant serves both (a test in the engine holds that). Lines are
//! UTF-8; a message that is not understood is `None`, never a guess.

use std::net::SocketAddr;

/// Where the shim and its control socket are mounted in every container.
pub const FOLDER: &str = "/.faultbox";

/// One instruction of a filter program: code, jumps, operand.
pub type Instruction = (u16, u8, u8, u32);

/// What a shim is told first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Orders {
    /// Listeners to make inside the container, for the service's upstreams.
    pub listen: Vec<SocketAddr>,
    /// The filter to install; empty means none.
    pub filter: Vec<Instruction>,
    /// Whether not to ask that trapped calls wait on when signals arrive.
    pub restartable: bool,
}

impl Orders {
    /// Understands what the engine wrote.
    pub fn parse(text: &str) -> Option<Orders> {
        let mut lines = text.lines();
        if lines.next() != Some("orders 1") {
            return None;
        }
        let mut orders = Orders::default();
        for line in lines {
            match line.split_once(' ')? {
                ("without", "wait_killable") => orders.restartable = true,
                ("listen", address) => orders.listen.push(address.parse().ok()?),
                ("filter", numbers) => {
                    let mut numbers = numbers.split(' ');
                    let instruction = (
                        numbers.next()?.parse().ok()?,
                        numbers.next()?.parse().ok()?,
                        numbers.next()?.parse().ok()?,
                        numbers.next()?.parse().ok()?,
                    );
                    orders.filter.push(instruction);
                }
                _ => return None,
            }
        }
        Some(orders)
    }
}

/// What the shim is told afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Notifications are being answered: execute.
    Go,
    /// A new TCP socket, please.
    Socket {
        /// IPv6 instead of IPv4.
        v6: bool,
    },
    /// Send this signal to every process.
    Signal(i32),
    /// The end of this connection is not the end: wait for the next one. The first time, the socket
    /// on which it will arrive comes with this.
    Keep,
    /// End.
    End,
}

impl Command {
    /// Understands the JSON of the engine's own commands.
    pub fn parse(text: &str) -> Option<Command> {
        match text {
            "\"Go\"" => Some(Command::Go),
            "\"End\"" => Some(Command::End),
            "\"Keep\"" => Some(Command::Keep),
            "{\"Socket\":{\"v6\":false}}" => Some(Command::Socket { v6: false }),
            "{\"Socket\":{\"v6\":true}}" => Some(Command::Socket { v6: true }),
            other => {
                let number = other.strip_prefix("{\"Signal\":")?.strip_suffix('}')?;
                number.parse().ok().map(Command::Signal)
            }
        }
    }
}

/// Listeners come with this.
pub const LISTENERS: &str = "\"Listeners\"";
/// The filter's listener comes with this.
pub const FILTER: &str = "\"Filter\"";
/// The image's own code runs. (Process ids in here mean nothing outside.)
pub const STARTED: &str = "{\"Started\":0}";
/// A socket comes with this.
pub const SOCKET: &str = "{\"Socket\":{\"Ok\":null}}";

/// There is no socket.
pub fn no_socket(errno: i32) -> String {
    format!("{{\"Socket\":{{\"Err\":{errno}}}}}")
}

/// The image's own code will not run.
pub fn failed(step: &str, errno: i32) -> String {
    let mut text = String::new();
    for character in step.chars().take(1000) {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    format!("{{\"Failed\":{{\"step\":\"{text}\",\"errno\":{errno}}}}}")
}
