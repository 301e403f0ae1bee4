//! Recorded exchanges as bytes again: what both sides of a connection could have sent.
//!
//! Contract: made with the codecs of the protocols, out of what a journal says. Where a connection's set-up or a
//! choice of encoding is not in it, the plainest is taken. What cannot be said again is an error with its
//! reason; the connection goes on.

use faultbox_bundle_format::Value;

/// What one side sends at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whether the side that asks sends it.
    pub asks: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Piece {
    /// What the side that asks sends.
    pub fn asked(bytes: Vec<u8>) -> Self {
        Piece { asks: true, bytes }
    }

    /// What the other side sends.
    pub fn answered(bytes: Vec<u8>) -> Self {
        Piece { asks: false, bytes }
    }
}

/// One exchange as bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Before its request: the connection's set-up.
    pub before: Vec<Piece>,
    /// The request; empty where there is none.
    pub request: Vec<u8>,
    /// The response; empty where there is none.
    pub response: Vec<u8>,
}

/// A connection that is told again.
pub trait Retell {
    /// The next exchange of the connection, in the order in which they began.
    ///
    /// # Errors
    /// Why it cannot be said again.
    fn exchange(&mut self, request: &Value, response: Option<&Value>) -> Result<Pieces, String>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{by_name, kafka, mysql, redis};
    use bytes::Bytes;

    fn retold(protocol: &str, exchanges: &[(Value, Option<Value>)]) -> Vec<Pieces> {
        let mut retold = by_name(protocol).unwrap().retell();
        exchanges.iter().map(|(asked, answer)| retold.exchange(asked, answer.as_ref()).unwrap()).collect()
    }

    #[test]
    fn mysql_is_decoded_as_it_was() {
        let sql = "SELECT * FROM t WHERE a = ? AND b = ?";
        let params = Value::List(vec![Value::Int(7), Value::text("x")]);
        let prepare = Value::map([("command", Value::text("prepare")), ("sql", Value::text(sql))]);
        let execute = Value::map([
            ("command", Value::text("execute")),
            ("sql", Value::text(sql)),
            ("params", params.clone()),
        ]);
        let fine = mysql::result::ok_value(1, 0, 2, 0, "");
        let said =
            retold("mysql", &[(prepare, Some(mysql::serve::unprepared(sql))), (execute, Some(fine.clone()))]);
        assert_eq!(said[0].before.len(), 3, "a handshake that nobody recorded");
        assert!(said[1].before.is_empty());
        let mut session = mysql::command::Session::default();
        session.prepared(1, sql);
        let command = session.decode(&said[1].request[4..]).unwrap();
        assert_eq!(session.describe(&command).body.get("params"), Some(&params));
        assert_eq!(said[1].response[4], 0, "OK");
    }

    #[test]
    fn kafka_is_decoded_as_it_was() {
        let record = Value::map([
            ("offset", Value::Int(0)),
            ("timestamp", Value::Int(5)),
            ("key", Value::Null),
            ("value", Value::text("hello")),
            ("headers", Value::List(Vec::new())),
        ]);
        let part = Value::map([("partition", Value::Int(0)), ("records", Value::List(vec![record]))]);
        let topic = Value::map([("topic", Value::text("t")), ("partitions", Value::List(vec![part]))]);
        let request = Value::map([
            ("api", Value::text("Produce")),
            ("version", Value::Int(9)),
            ("acks", Value::Int(1)),
            ("topics", Value::List(vec![topic])),
        ]);
        let said = retold("kafka", &[(request.clone(), None)]);
        let frame = Bytes::copy_from_slice(&said[0].request[4..]);
        let (head, decoded) = kafka::codec::decode_request(&frame).unwrap();
        let kafka::codec::Decoded::Known(kind) = decoded else { panic!("{head:?}") };
        let again = kafka::message::describe(&head, &kind).body;
        let records = |value: &Value| {
            let topics = value.get("topics").and_then(Value::as_list).unwrap_or_default();
            let parts = topics[0].get("partitions").and_then(Value::as_list).unwrap_or_default();
            parts[0].get("records").map(Value::stable)
        };
        assert!(records(&again).is_some_and(|records| records.as_list().is_some_and(|list| list.len() == 1)));
        assert_eq!(again.get("acks"), request.get("acks"));
        let metadata = Value::map([("api", Value::text("Metadata"))]);
        let refused = by_name("kafka").unwrap().retell().exchange(&metadata, None);
        assert_eq!(refused, Err("a journal does not have all of Metadata".to_owned()));
    }

    #[test]
    fn redis_and_http_are_text() {
        let words = Value::List(vec![Value::text("GET"), Value::text("k")]);
        let said = retold("redis", &[(Value::map([("args", words)]), Some(Value::text("v")))]);
        assert_eq!(said[0].request, redis::codec::encode_command(&["GET", "k"]));
        assert_eq!(said[0].response, b"$1\r\nv\r\n");
        let asked = Value::map([
            ("method", Value::text("POST")),
            ("path", Value::text("/a")),
            ("query", Value::text("b=c")),
            ("headers", Value::map([("host", Value::text("h"))])),
            ("body", Value::text("hi")),
        ]);
        let said = retold("http", &[(asked, Some(Value::map([("status", Value::Int(204))])))]);
        assert_eq!(said[0].request, b"POST /a?b=c HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi");
        assert!(said[0].response.starts_with(b"HTTP/1.1 204 No Content\r\n"));
    }
}
