//! A mock gRPC server whose answers are typed by descriptors.
//!
//! Contract: methods and answers are checked against the descriptors when the mock is made;
//! an error names the nearest right name. A method that is in the descriptors (or not) and
//! has no answer here is answered UNIMPLEMENTED. Health and reflection are the protocol's
//! own ([`crate::protocol::grpc`]).
//! Not modelled: answers that depend on the request.

use super::{Mock, MockError};
use crate::link::{Answer, BoxFuture, Conversation, Request, Responder};
use crate::prng::Key;
use crate::protocol::grpc::message::{self, Schema};
use crate::protocol::grpc::{status, value};
use faultbox_bundle_format::{RuleHit, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a method answers.
#[derive(Debug, Clone, PartialEq)]
pub enum GrpcAnswer {
    /// One message.
    Response(Value),
    /// A status other than OK.
    Error {
        /// The code, by name or number.
        code: String,
        /// The message.
        message: String,
    },
    /// The messages of a server stream, in order.
    Responses(Vec<Value>),
}

/// A declared gRPC mock.
#[derive(Debug)]
pub struct GrpcMock {
    descriptors: Arc<Vec<u8>>,
    answers: Arc<BTreeMap<String, Value>>,
}

impl GrpcMock {
    /// A mock of these services: method path (`/package.Service/Method`) and answer.
    ///
    /// # Errors
    /// When the descriptors cannot be read, or a method or field is not in them.
    pub fn new(descriptors: Vec<u8>, services: Vec<(String, GrpcAnswer)>) -> Result<Self, MockError> {
        let schema = Schema::decode(&descriptors).map_err(MockError)?;
        let mut answers = BTreeMap::new();
        for (path, answer) in services {
            let path = if path.starts_with('/') { path } else { format!("/{path}") };
            let checked =
                check(&schema, &path, &answer).map_err(|problem| MockError(format!("{path}: {problem}")))?;
            if answers.insert(path.clone(), checked).is_some() {
                return Err(MockError(format!("{path} is answered twice")));
            }
        }
        Ok(GrpcMock { descriptors: Arc::new(descriptors), answers: Arc::new(answers) })
    }
}

/// The answer as a response value of the protocol.
fn check(schema: &Schema, path: &str, answer: &GrpcAnswer) -> Result<Value, String> {
    let method = schema.require(path)?;
    match answer {
        GrpcAnswer::Error { code, message } => {
            let code = status::number(code).ok_or_else(|| status::unknown(code))?;
            Ok(value::error(code, message))
        }
        GrpcAnswer::Response(response) => messages(&method, std::slice::from_ref(response)),
        GrpcAnswer::Responses(_) if !method.is_server_streaming() => {
            Err("answers with one message, not with a stream: write \"response\"".to_owned())
        }
        GrpcAnswer::Responses(responses) => messages(&method, responses),
    }
}

fn messages(method: &prost_reflect::MethodDescriptor, responses: &[Value]) -> Result<Value, String> {
    let output = method.output();
    let encoded = responses.iter().map(|response| message::from_value(&output, response));
    Ok(value::success(Some(&output), &encoded.collect::<Result<Vec<_>, _>>()?))
}

impl Mock for GrpcMock {
    fn kind(&self) -> &'static str {
        "grpc"
    }

    fn responder(&self, _key: Key) -> Arc<dyn Responder> {
        Arc::new(Answers(self.answers.clone()))
    }

    fn descriptors(&self) -> Option<Arc<Vec<u8>>> {
        Some(self.descriptors.clone())
    }
}

struct Answers(Arc<BTreeMap<String, Value>>);

impl Responder for Answers {
    fn converse(&self, _source: &str, _connection: u64) -> Arc<dyn Conversation> {
        Arc::new(Answers(self.0.clone()))
    }
}

impl Conversation for Answers {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        let answer = self.0.get(&request.key).cloned().unwrap_or_else(|| {
            value::error(status::UNIMPLEMENTED, &format!("the mock has no answer for {}", request.key))
        });
        Box::pin(async move { (Answer::Reply(answer), None) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::grpc::testing::descriptors;

    fn mock(path: &str, answer: GrpcAnswer) -> Result<GrpcMock, MockError> {
        GrpcMock::new(descriptors(), vec![(path.to_owned(), answer)])
    }

    #[test]
    fn wrong_names_are_refused_with_the_nearest_right_one() {
        let city = Value::map([("id", Value::Int(1))]);
        let problem = mock("/geo.Cities/GetCty", GrpcAnswer::Response(city)).unwrap_err().0;
        assert!(problem.contains("the nearest is /geo.Cities/GetCity"), "{problem}");
        let city = Value::map([("nmae", Value::text("Almaty"))]);
        let problem = mock("/geo.Cities/GetCity", GrpcAnswer::Response(city)).unwrap_err().0;
        assert!(problem.contains("no field nmae") && problem.contains("the nearest is name"), "{problem}");
        let city = Value::map([("id", Value::text("many"))]);
        let problem = mock("/geo.Cities/GetCity", GrpcAnswer::Response(city)).unwrap_err().0;
        assert!(problem.contains("id: \"many\" is not an int64"), "{problem}");
        let error = GrpcAnswer::Error { code: "UNAVAILABEL".into(), message: String::new() };
        let problem = mock("/geo.Cities/GetCity", error).unwrap_err().0;
        assert!(problem.contains("the nearest is UNAVAILABLE"), "{problem}");
        let problem = mock("/geo.Cities/GetCity", GrpcAnswer::Responses(vec![])).unwrap_err().0;
        assert!(problem.contains("not with a stream"), "{problem}");
        assert!(GrpcMock::new(b"not descriptors".to_vec(), vec![]).is_err());
    }
}
