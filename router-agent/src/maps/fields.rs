//! Named values in the order in which they were added.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

/// What a map's key or value holds. Displayed as `name value, name value`; a list's items are
/// joined by `+`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// Adds all of another's.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, value) in &self.0 {
            write!(f, "{separator}{name} {}", text(value))?;
            separator = ", ";
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            items.join("+")
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order() {
        let fields = Fields::default()
            .with("z", 1_u32)
            .with("a", "x")
            .with("flags", vec!["one", "two"])
            .with("key", None::<u32>);
        assert_eq!(
            serde_json::to_string(&fields).unwrap(),
            r#"{"z":1,"a":"x","flags":["one","two"],"key":null}"#
        );
        assert_eq!(fields.to_string(), "z 1, a x, flags one+two, key none");
    }
}
