//! Descriptors for tests, built in code.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MessageOptions, MethodDescriptorProto, ServiceDescriptorProto,
};

fn field(name: &str, number: i32, kind: Type, repeated: bool) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(if repeated { Label::Repeated } else { Label::Optional } as i32),
        r#type: Some(kind as i32),
        ..FieldDescriptorProto::default()
    }
}

fn typed(name: &str, number: i32, kind: Type, of: &str, repeated: bool) -> FieldDescriptorProto {
    FieldDescriptorProto { type_name: Some(of.to_owned()), ..field(name, number, kind, repeated) }
}

fn message(name: &str, fields: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field: fields, ..DescriptorProto::default() }
}

fn method(name: &str, client: bool, server: bool) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".geo.CityQuery".to_owned()),
        output_type: Some(".geo.City".to_owned()),
        client_streaming: Some(client),
        server_streaming: Some(server),
        ..MethodDescriptorProto::default()
    }
}

/// `geo.Cities`: `GetCity` and `PutCity` (unary), `ListCities` (server stream), `Chat` (both).
pub fn descriptors() -> Vec<u8> {
    let mut file = FileDescriptorProto {
        name: Some("geo.proto".to_owned()),
        package: Some("geo".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![
            message(
                "CityQuery",
                vec![field("id", 1, Type::Int64, false), field("trace", 2, Type::String, false)],
            ),
            message(
                "City",
                vec![
                    field("id", 1, Type::Int64, false),
                    field("name", 2, Type::String, false),
                    field("tags", 3, Type::String, true),
                    field("blob", 4, Type::Bytes, false),
                    field("big", 5, Type::Uint64, false),
                    field("area", 6, Type::Double, false),
                    field("capital", 7, Type::Bool, false),
                    typed("size", 8, Type::Enum, ".geo.Size", false),
                    typed("names", 9, Type::Message, ".geo.City.NamesEntry", true),
                    typed("origin", 10, Type::Message, ".geo.CityQuery", false),
                    field("ratio", 11, Type::Float, false),
                ],
            ),
        ],
        service: vec![ServiceDescriptorProto {
            name: Some("Cities".to_owned()),
            method: vec![
                method("GetCity", false, false),
                method("PutCity", false, false),
                method("ListCities", false, true),
                method("Chat", true, true),
            ],
            ..ServiceDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    };
    let mut entry = message(
        "NamesEntry",
        vec![field("key", 1, Type::Int32, false), field("value", 2, Type::String, false)],
    );
    entry.options = Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() });
    file.message_type[1].nested_type.push(entry);
    let sizes = ["SIZE_UNKNOWN", "SMALL", "LARGE"].into_iter().enumerate();
    let sizes = sizes.map(|(number, name)| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number as i32),
        options: None,
    });
    file.enum_type.push(EnumDescriptorProto {
        name: Some("Size".to_owned()),
        value: sizes.collect(),
        ..EnumDescriptorProto::default()
    });
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}
