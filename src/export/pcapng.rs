//! Exchanges as a pcapng file: TCP streams that Wireshark dissects.
//!
//! Contract: what was said is in the bundle, how it was packed is not: bytes are encoded again by the protocols'
//! own codecs, and addresses, ports, sequence numbers and acknowledgements are made up. Services have addresses
//! of 10.77.0.0/16 and their names beside them; ports are those that the protocols usually have. Packets have
//! the times of the exchanges. A connection that a rule cut ends with a reset, any other with both halves closed.
//! What cannot be said again ([`Written::left_out`]) is left out and counted.

use faultbox_bundle_format::{Body, Bundle, CellSummary, Exchange, Outcome, ReadError, split_interface};
use faultbox_engine::protocol::{self, retell::Piece};
use std::collections::BTreeMap;

/// Bytes of a segment: what fits an Ethernet frame.
const SEGMENT: usize = 1460;
/// The first port of those who ask.
const FIRST_PORT: u16 = 32_768;
/// The link type of packets that begin with their IP header.
const RAW: u16 = 101;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// A file, and what is not in it.
pub struct Written {
    /// The file.
    pub bytes: Vec<u8>,
    /// How many connections are in it.
    pub connections: usize,
    /// Why exchanges are not in it, and how many.
    pub left_out: BTreeMap<String, usize>,
}

/// The connection of an exchange: cell, who asks, interface, number.
type Key<'a> = (u32, &'a str, &'a str, u64);

/// One packet.
struct Packet {
    at_ns: u64,
    bytes: Vec<u8>,
    comment: Option<String>,
}

/// The file of these cells.
///
/// # Errors
/// When the bundle is damaged.
pub fn file(bundle: &Bundle, cells: &[&CellSummary]) -> Result<Written, ReadError> {
    let started = super::run_started(bundle)?;
    let base = started.map_or(0, |started| started.unix_ns);
    let mut left_out = BTreeMap::new();
    let mut hosts = Hosts::default();
    let mut packets = Vec::new();
    let mut connections = 0;
    for cell in cells {
        let entries = bundle.entries(cell.cell)?;
        let mut streams: BTreeMap<Key<'_>, Vec<&Exchange>> = BTreeMap::new();
        for entry in &entries {
            if let Body::Exchange(exchange) = &entry.body {
                let Exchange { source, interface, connection, .. } = exchange;
                let key = (cell.cell, source.as_str(), interface.as_str(), *connection);
                streams.entry(key).or_default().push(exchange);
            }
        }
        for (_, mut exchanges) in streams {
            exchanges.sort_by_key(|exchange| (exchange.began_ns, exchange.began_seq));
            let said = said(&exchanges, base, &mut left_out);
            let Some(first) = exchanges.first().filter(|_| !said.is_empty()) else { continue };
            let port = FIRST_PORT + (connections % usize::from(u16::MAX - FIRST_PORT)) as u16;
            let client = (hosts.of(&first.source), port);
            let server = (hosts.of(split_interface(&first.interface).0), port_of(&first.protocol));
            let comment = format!("cell {}: {} -> {}", cell.name, first.source, first.interface);
            connections += 1;
            Connection::new(client, server, &mut packets).carry(&said, comment);
        }
    }
    packets.sort_by_key(|packet| packet.at_ns);
    let left: usize = left_out.values().sum();
    let mut bytes = section(left);
    bytes.extend(hosts.block());
    packets.iter().for_each(|packet| bytes.extend(packet.block()));
    Ok(Written { bytes, connections, left_out })
}

/// What is sent at a time.
struct Said {
    at_ns: u64,
    piece: Piece,
    comment: Option<String>,
    /// The asker's connection is reset after it.
    cut: bool,
}

/// The bytes of a connection's exchanges, in order of their times.
fn said(exchanges: &[&Exchange], base: u64, left_out: &mut BTreeMap<String, usize>) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let protocol = exchanges.first().and_then(|exchange| protocol::by_name(&exchange.protocol));
    let Some(protocol) = protocol else { return said };
    let mut retold = protocol.retell();
    for exchange in exchanges {
        let request = exchange.request.value();
        let response = exchange.response.as_ref().and_then(|response| response.value());
        let request = request.ok_or_else(|| "its request cannot be read".to_owned());
        let pieces = request.and_then(|request| retold.exchange(&request, response.as_ref()));
        let pieces = match pieces {
            Ok(pieces) => pieces,
            Err(why) => {
                *left_out.entry(format!("{}: {why}", exchange.protocol)).or_default() += 1;
                continue;
            }
        };
        let (began, ended) = (base.saturating_add(exchange.began_ns), base.saturating_add(exchange.ended_ns));
        let mut push = |at_ns, piece: Piece, comment| {
            if !piece.bytes.is_empty() {
                said.push(Said { at_ns, piece, comment, cut: false });
            }
        };
        pieces.before.into_iter().for_each(|piece| push(began, piece, None));
        let rule = exchange.rule.as_ref().map(|hit| format!("{}: {}", hit.assumption, hit.action));
        push(began, Piece::asked(pieces.request), rule);
        push(ended.max(began), Piece::answered(pieces.response), None);
        if let (Outcome::Dropped, Some(last)) = (exchange.outcome, said.last_mut()) {
            last.cut = true;
        }
    }
    // Answers of calls beside each other come when they came.
    said.sort_by_key(|said| said.at_ns);
    if let Some(cut) = said.iter().position(|said| said.cut) {
        said.truncate(cut + 1);
    }
    said
}

/// The port by which a dissector knows a protocol.
fn port_of(protocol: &str) -> u16 {
    match protocol {
        // The HTTP dissector looks for the preface of HTTP/2.
        "http" => 80,
        "grpc" => 8080,
        "mysql" => 3306,
        "redis" => 6379,
        "kafka" => 9092,
        _ => 7,
    }
}

/// The addresses that names have in the file.
#[derive(Default)]
struct Hosts(BTreeMap<String, u16>);

impl Hosts {
    fn of(&mut self, name: &str) -> [u8; 4] {
        let next = self.0.len() as u16 + 1;
        let [high, low] = self.0.entry(name.to_owned()).or_insert(next).to_be_bytes();
        [10, 77, high, low]
    }

    /// The block that names them.
    fn block(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, number) in &self.0 {
            let [high, low] = number.to_be_bytes();
            let record = [&[10, 77, high, low][..], name.as_bytes(), &[0]].concat();
            option(&mut body, 1, &record);
        }
        body.extend_from_slice(&[0; 4]);
        block(4, &body)
    }
}

/// A connection that is being written.
struct Connection<'a> {
    client: ([u8; 4], u16),
    server: ([u8; 4], u16),
    /// Next sequence numbers of the client and of the server.
    next: [u32; 2],
    packets: &'a mut Vec<Packet>,
}

impl<'a> Connection<'a> {
    fn new(client: ([u8; 4], u16), server: ([u8; 4], u16), packets: &'a mut Vec<Packet>) -> Self {
        Connection { client, server, next: [0, 0], packets }
    }

    fn carry(&mut self, said: &[Said], comment: String) {
        let (Some(first), Some(last)) = (said.first(), said.last()) else { return };
        self.send(true, SYN, &[], first.at_ns, Some(comment));
        self.send(false, SYN | ACK, &[], first.at_ns, None);
        self.send(true, ACK, &[], first.at_ns, None);
        for one in said {
            let Said { at_ns, piece, comment, cut } = one;
            let mut comment = comment.clone();
            for segment in piece.bytes.chunks(SEGMENT) {
                self.send(piece.asks, PSH | ACK, segment, *at_ns, comment.take());
                self.send(!piece.asks, ACK, &[], *at_ns, None);
            }
            if *cut {
                self.send(false, RST | ACK, &[], *at_ns, Some("cut by a rule".to_owned()));
                return;
            }
        }
        self.send(true, FIN | ACK, &[], last.at_ns, None);
        self.send(false, FIN | ACK, &[], last.at_ns, None);
        self.send(true, ACK, &[], last.at_ns, None);
    }

    fn send(&mut self, asks: bool, flags: u8, data: &[u8], at_ns: u64, comment: Option<String>) {
        let (me, you) = if asks { (0, 1) } else { (1, 0) };
        let (from, to) = if asks { (self.client, self.server) } else { (self.server, self.client) };
        let ack = if flags & ACK != 0 { self.next[you] } else { 0 };
        let mut tcp = Vec::with_capacity(20 + data.len());
        tcp.extend_from_slice(&from.1.to_be_bytes());
        tcp.extend_from_slice(&to.1.to_be_bytes());
        tcp.extend_from_slice(&self.next[me].to_be_bytes());
        tcp.extend_from_slice(&ack.to_be_bytes());
        // Five words of header, the flags, a window, the checksum's place, no urgent data.
        tcp.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend_from_slice(data);
        let length = (tcp.len() as u16).to_be_bytes();
        let pseudo = [&from.0[..], &to.0, &[0, 6], &length, &tcp].concat();
        tcp[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        let total = (20 + tcp.len() as u16).to_be_bytes();
        let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
        ip.extend_from_slice(&from.0);
        ip.extend_from_slice(&to.0);
        let sum = checksum(&ip).to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        ip.extend(tcp);
        self.packets.push(Packet { at_ns, bytes: ip, comment });
        let counted = u32::from(flags & (SYN | FIN) != 0);
        self.next[me] = self.next[me].wrapping_add(data.len() as u32 + counted);
    }
}

/// The internet checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The blocks that a file begins with: of the section, and of its one interface.
fn section(left_out: usize) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend_from_slice(&0x1a2b_3c4du32.to_le_bytes());
    head.extend_from_slice(&[1, 0, 0, 0]);
    head.extend_from_slice(&u64::MAX.to_le_bytes());
    let said = format!("Reconstructed from a Faultbox bundle; {left_out} exchanges could not be.");
    option(&mut head, 1, said.as_bytes());
    option(&mut head, 4, concat!("faultbox ", env!("CARGO_PKG_VERSION")).as_bytes());
    head.extend_from_slice(&[0; 4]);
    let mut interface = Vec::new();
    interface.extend_from_slice(&RAW.to_le_bytes());
    interface.extend_from_slice(&[0; 6]);
    // Times are nanoseconds.
    option(&mut interface, 9, &[9]);
    interface.extend_from_slice(&[0; 4]);
    [block(0x0a0d_0d0a, &head), block(1, &interface)].concat()
}

impl Packet {
    fn block(&self) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend_from_slice(&((self.at_ns >> 32) as u32).to_le_bytes());
        body.extend_from_slice(&(self.at_ns as u32).to_le_bytes());
        let length = (self.bytes.len() as u32).to_le_bytes();
        body.extend_from_slice(&length);
        body.extend_from_slice(&length);
        body.extend_from_slice(&self.bytes);
        pad(&mut body);
        if let Some(comment) = &self.comment {
            option(&mut body, 1, comment.as_bytes());
            body.extend_from_slice(&[0; 4]);
        }
        block(6, &body)
    }
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(value);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &length].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[1]), !0x0100);
    }

    #[test]
    fn a_stream_is_numbered_and_closed() {
        let mut packets = Vec::new();
        let said = |asks, bytes: usize| Said {
            at_ns: 5,
            piece: Piece { asks, bytes: vec![0; bytes] },
            comment: None,
            cut: false,
        };
        let all = [said(true, 2000), said(false, 3)];
        Connection::new(([10, 77, 0, 1], 40_000), ([10, 77, 0, 2], 80), &mut packets)
            .carry(&all, "x".to_owned());
        let numbers: Vec<(u8, u32, u32, usize)> = packets
            .iter()
            .map(|packet| {
                let tcp = &packet.bytes[20..];
                let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
                assert_eq!(checksum(&packet.bytes[..20]), 0, "a header that checks");
                (tcp[13], word(4), word(8), tcp.len() - 20)
            })
            .collect();
        assert_eq!(
            numbers,
            [
                (SYN, 0, 0, 0),
                (SYN | ACK, 0, 1, 0),
                (ACK, 1, 1, 0),
                (PSH | ACK, 1, 1, 1460),
                (ACK, 1, 1461, 0),
                (PSH | ACK, 1461, 1, 540),
                (ACK, 1, 2001, 0),
                (PSH | ACK, 1, 2001, 3),
                (ACK, 2001, 4, 0),
                (FIN | ACK, 2001, 4, 0),
                (FIN | ACK, 4, 2002, 0),
                (ACK, 2002, 5, 0),
            ]
        );
    }
}
