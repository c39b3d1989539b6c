//! What [`ConsoleConfig`] looks like as JSON: a derived schema has no word for a path inside of a variant.

use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Object, RefOr};

use super::ConsoleConfig;

impl utoipa::ToSchema for ConsoleConfig {}

impl utoipa::PartialSchema for ConsoleConfig {
    fn schema() -> RefOr<Schema> {
        let word = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["stdio", "off"]));
        let path =
            |key: &str| ObjectBuilder::new().property(key, Object::with_type(Type::String)).required(key);
        let choices = OneOfBuilder::new().item(word).item(path("file")).item(path("socket"));
        choices.description(Some("Where the serial and the virtio console go.")).into()
    }
}
