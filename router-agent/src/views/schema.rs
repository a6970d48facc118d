//! docs/control-schema.json, out of the types themselves: what goes over the control socket, and what
//! `--json` prints.

use std::{env, fs, path::Path};

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    events::ClusterEvent,
    json::{Document, View},
};
use crate::{
    control::protocol::{LogLine, Request, Response},
    maps::{Dump, Maps},
};

const DESCRIPTION: &str = "What goes over the control socket of router-agent (Request, Response), and what \
                           routerctl prints with --json: a Document of each view, of the list of maps and of a \
                           map; an object a line of `monitor cluster` (ClusterEvent) and of `show log --follow` \
                           (LogLine). New fields may come at any time. Made by `UPDATE_REFERENCE=1 cargo test \
                           --package router-agent --lib views::schema`; a test fails if it is stale.";

fn schema() -> String {
    // A client may leave out what has a default, and finds all fields in what it gets.
    let asked = generator(SchemaSettings::for_deserialize, add::<Request>);
    let answered = generator(SchemaSettings::for_serialize, |generator| {
        add::<Response>(generator);
        add::<Document<View<'static>>>(generator);
        add::<Document<&Maps>>(generator);
        add::<Document<&Dump>>(generator);
        add::<ClusterEvent>(generator);
        add::<LogLine>(generator);
    });
    let mut types = asked;
    for (name, schema) in answered {
        let before = types.insert(name.clone(), schema.clone());
        assert!(before.is_none_or(|before| before == schema), "two {name}");
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "router-agent",
        "description": DESCRIPTION,
        "$defs": types,
    });
    // Names of types stand in brackets in the sources.
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    text.replace("[`", "`").replace("`]", "`")
}

fn generator(
    contract: fn(SchemaSettings) -> SchemaSettings,
    add: impl FnOnce(&mut SchemaGenerator),
) -> Map<String, Value> {
    let mut generator = contract(SchemaSettings::draft2020_12()).into_generator();
    add(&mut generator);
    generator.take_definitions(true)
}

/// With all types that it holds.
fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

#[test]
fn the_schema_is_not_stale() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/control-schema.json");
    let schema = schema();
    if env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &schema).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap() == schema,
        "docs/control-schema.json is stale: run this test with UPDATE_REFERENCE=1"
    );
}

/// Names alone are no documentation. What a type says counts for a field that is of it.
#[test]
fn every_type_and_field_says_what_it_is() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    for (name, of) in schema["$defs"].as_object().unwrap() {
        assert!(of["description"].is_string(), "{name}");
        for (field, is) in of["properties"].as_object().into_iter().flatten() {
            let is_told = is["description"].is_string() || is["$ref"].is_string();
            assert!(is_told, "{name}: {field}");
        }
    }
}
