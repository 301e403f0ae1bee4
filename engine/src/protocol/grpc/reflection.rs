//! Server reflection: both sides of its messages.
//!
//! Contract: v1 and v1alpha, whose messages are the same. A file comes with all that it
//! imports.
//! Not modelled: extensions (answered NOT_FOUND).

use super::message::Schema;
use super::status;
use prost::Message;
use prost_reflect::FileDescriptor;

/// The methods, newest first.
pub const METHODS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// A health check's question.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckRequest {
    /// The service asked about; empty for the server.
    #[prost(string, tag = "1")]
    pub service: String,
}

impl HealthCheckRequest {
    /// Reads one; what cannot be read asks about the server.
    pub fn of(bytes: &[u8]) -> Self {
        HealthCheckRequest::decode(bytes).unwrap_or_default()
    }
}

/// A question.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Question {
    /// The host.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Asks for a file by its name.
    #[prost(string, optional, tag = "3")]
    pub file_by_filename: Option<String>,
    /// Asks for the file that declares a symbol.
    #[prost(string, optional, tag = "4")]
    pub file_containing_symbol: Option<String>,
    /// Asks for the names of all services.
    #[prost(string, optional, tag = "7")]
    pub list_services: Option<String>,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// The host.
    #[prost(string, tag = "1")]
    pub valid_host: String,
    /// The question.
    #[prost(message, optional, tag = "2")]
    pub original_request: Option<Question>,
    /// Files.
    #[prost(message, optional, tag = "4")]
    pub files: Option<Files>,
    /// Services.
    #[prost(message, optional, tag = "6")]
    pub services: Option<Services>,
    /// A refusal.
    #[prost(message, optional, tag = "7")]
    pub error: Option<Refusal>,
}

/// Encoded `FileDescriptorProto`s.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Files {
    /// The files.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub files: Vec<Vec<u8>>,
}

/// Names of services.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Services {
    /// The services.
    #[prost(message, repeated, tag = "1")]
    pub services: Vec<ServiceName>,
}

/// A service's name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ServiceName {
    /// The full name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A refusal.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refusal {
    /// A status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Why.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Answers a question.
pub fn answer(schema: &Schema, question: &[u8]) -> Vec<u8> {
    let question = Question::decode(question).unwrap_or_default();
    let mut reply = Reply { valid_host: question.host.clone(), ..Reply::default() };
    if question.list_services.is_some() {
        let names = schema.pool().services().map(|s| ServiceName { name: s.full_name().to_owned() });
        reply.services = Some(Services { services: names.collect() });
    } else {
        let by_name =
            question.file_by_filename.as_ref().and_then(|name| schema.pool().get_file_by_name(name));
        let symbol = question.file_containing_symbol.as_deref();
        match by_name.or_else(|| symbol.and_then(|symbol| declaring(schema, symbol))) {
            Some(file) => {
                let mut files = Vec::new();
                collect(&file, &mut files);
                let files = files.iter().map(|f| f.file_descriptor_proto().encode_to_vec()).collect();
                reply.files = Some(Files { files });
            }
            None => {
                let message = "not in the descriptors".to_owned();
                reply.error = Some(Refusal { code: status::NOT_FOUND as i32, message });
            }
        }
    }
    reply.original_request = Some(question);
    reply.encode_to_vec()
}

fn declaring(schema: &Schema, symbol: &str) -> Option<FileDescriptor> {
    let pool = schema.pool();
    let service = |name: &str| pool.get_service_by_name(name).map(|s| s.parent_file());
    let message = |name: &str| pool.get_message_by_name(name).map(|m| m.parent_file());
    let symbols = [Some(symbol), symbol.rsplit_once('.').map(|(parent, _)| parent)];
    // The symbol itself, or what it is a member of (a method, a field).
    symbols.into_iter().flatten().find_map(|name| {
        let found = service(name).or_else(|| message(name));
        found.or_else(|| pool.get_enum_by_name(name).map(|e| e.parent_file()))
    })
}

/// A file after all that it imports.
fn collect(file: &FileDescriptor, files: &mut Vec<FileDescriptor>) {
    if files.iter().any(|known| known.name() == file.name()) {
        return;
    }
    for import in file.dependencies() {
        collect(&import, files);
    }
    files.push(file.clone());
}
