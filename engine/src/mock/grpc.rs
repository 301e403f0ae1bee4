//! A mock gRPC server whose answers are typed by descriptors.
//!
//! Contract: methods and answers are checked against the descriptors when the mock is made;
//! an error names the nearest right name. A method that is in the descriptors (or not) and
//! has no answer here is answered UNIMPLEMENTED. Health and reflection are the protocol's
//! own ([`crate::protocol::grpc`]).
//! A function as an answer gets the request and gives such an answer; what it gives is checked
//! when it gives it, and a function that fails is answered INTERNAL with its reason.
//! Not modelled: functions that keep state between requests (a spec is frozen when it is run).

use super::{Mock, MockCell, MockError};
use crate::link::{Answer, BoxFuture, Conversation, Request, Responder};
use crate::plan::Program;
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
    /// What this function of the spec says (its number in the program).
    Function(usize),
}

/// A checked answer.
#[derive(Debug)]
enum Declared {
    /// This one, always.
    Fixed(Value),
    /// What a function says.
    Function(usize),
}

/// A declared gRPC mock.
#[derive(Debug)]
pub struct GrpcMock {
    descriptors: Arc<Vec<u8>>,
    schema: Arc<Schema>,
    answers: Arc<BTreeMap<String, Declared>>,
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
        Ok(GrpcMock {
            descriptors: Arc::new(descriptors),
            schema: Arc::new(schema),
            answers: Arc::new(answers),
        })
    }
}

/// The answer as a response value of the protocol.
fn check(schema: &Schema, path: &str, answer: &GrpcAnswer) -> Result<Declared, String> {
    let method = schema.require(path)?;
    let fixed = match answer {
        GrpcAnswer::Function(number) => return Ok(Declared::Function(*number)),
        GrpcAnswer::Error { code, message } => {
            let code = status::number(code).ok_or_else(|| status::unknown(code))?;
            value::error(code, message)
        }
        GrpcAnswer::Response(response) => messages(&method, std::slice::from_ref(response))?,
        GrpcAnswer::Responses(_) if !method.is_server_streaming() => {
            return Err("answers with one message, not with a stream: write \"response\"".to_owned());
        }
        GrpcAnswer::Responses(responses) => messages(&method, responses)?,
    };
    Ok(Declared::Fixed(fixed))
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

    fn responder(&self, cell: &MockCell) -> Arc<dyn Responder> {
        let (schema, answers) = (self.schema.clone(), self.answers.clone());
        Arc::new(Answers { schema, answers, program: cell.program.clone() })
    }

    fn descriptors(&self) -> Option<Arc<Vec<u8>>> {
        Some(self.descriptors.clone())
    }
}

#[derive(Clone)]
struct Answers {
    schema: Arc<Schema>,
    answers: Arc<BTreeMap<String, Declared>>,
    program: Arc<dyn Program>,
}

impl Answers {
    async fn respond(&self, request: &Request) -> Value {
        let path = &request.key;
        match self.answers.get(path) {
            Some(Declared::Fixed(answer)) => answer.clone(),
            Some(Declared::Function(number)) => {
                let (program, number, asked) = (self.program.clone(), *number, asked(&request.body));
                let called = tokio::task::spawn_blocking(move || program.answer(number, &asked)).await;
                let answer = called.unwrap_or_else(|panic| Err(panic.to_string()));
                match answer.and_then(|answer| check(&self.schema, path, &answer)) {
                    Ok(Declared::Fixed(answer)) => answer,
                    Ok(Declared::Function(_)) => failed(path, "it answered with a function"),
                    Err(why) => failed(path, &why),
                }
            }
            None => value::error(status::UNIMPLEMENTED, &format!("the mock has no answer for {path}")),
        }
    }
}

fn failed(path: &str, why: &str) -> Value {
    value::error(status::INTERNAL, &format!("the mock's function for {path} failed: {why}"))
}

/// What a function gets: the message, or the list of messages of a client's stream.
fn asked(request: &Value) -> Value {
    let message = request.get("message").or_else(|| request.get("messages"));
    message.map_or(Value::Null, |message| message.bare().clone())
}

impl Responder for Answers {
    fn converse(&self, _source: &str, _connection: u64) -> Arc<dyn Conversation> {
        Arc::new(self.clone())
    }
}

impl Conversation for Answers {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        Box::pin(async move { (Answer::Reply(self.respond(request).await), None) })
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
