//! A generated definition in, the same with a small structural schema out: no `nullable`, no unsigned formats,
//! no `additionalProperties: false`, no defaults but the one of `status`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

use super::Error;

/// Tidies a definition's schemas.
///
/// # Errors
/// When the result is no definition any more.
pub fn tidy(definition: CustomResourceDefinition) -> Result<CustomResourceDefinition, Error> {
    let name = definition.spec.names.plural.clone();
    let failed = |error| Error::Generate(name.clone(), error);
    let mut value = serde_json::to_value(definition).map_err(failed)?;
    for version in value
        .pointer_mut("/spec/versions")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(root) = version.pointer_mut("/schema/openAPIV3Schema") {
            tidy_schema(root);
            if let Some(status) = root
                .pointer_mut("/properties/status")
                .and_then(Value::as_object_mut)
            {
                // kstatus: an object that nobody has looked at yet is in progress.
                status.insert("default".into(), json!({"observedGeneration": -1}));
            }
        }
    }
    serde_json::from_value(value).map_err(failed)
}

fn tidy_schema(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    for noise in ["nullable", "default", "title"] {
        schema.remove(noise);
    }
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
    }
    if schema
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| format.starts_with("uint"))
    {
        schema.remove("format");
    }
    whole_numbers(schema);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties.iter_mut() {
            tidy_schema(property);
            bound_selector(name, property);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner) {
            tidy_schema(inner);
        }
    }
}

/// `1024.0` would be read back as another value by tools that compare texts.
fn whole_numbers(schema: &mut Map<String, Value>) {
    for bound in ["minimum", "maximum"] {
        if let Some(number) = schema.get(bound).and_then(Value::as_f64) {
            #[allow(clippy::cast_possible_truncation, reason = "bounds are far below 2^53")]
            schema.insert(bound.into(), json!(number as i64));
        }
    }
}

/// Label values have at most 63 bytes, which the engine's selector does not say in its schema.
fn bound_selector(name: &str, property: &mut Value) {
    let values = match name {
        "matchLabels" => property.get_mut("additionalProperties"),
        "values" => property.get_mut("items"),
        _ => None,
    };
    if let Some(values) = values.and_then(Value::as_object_mut) {
        values.insert("maxLength".into(), json!(63));
    }
}
