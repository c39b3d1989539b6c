//! The document against the routes.

use napa_api::host::ProblemKind;
use serde_json::{Value, json};

use crate::support::Api;

const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

#[test]
fn every_route_of_the_document_is_there_and_takes_no_other_method() {
    let api = Api::new();
    let document = api.get("/openapi.json").value();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 14, "{paths:?}");
    for (path, operations) in paths {
        let path = path.replace("{name}", "nobody");
        for method in METHODS {
            let answer = api.json(&method.to_uppercase(), &path, &json!({}));
            let is_described = operations.get(method).is_some();
            let is_refused = answer.status == 405
                || answer.status == 404 && answer.problem().kind == ProblemKind::UnknownResource;
            assert_eq!(is_refused, !is_described, "{method} {path}: {answer:?}");
            if answer.status == 405 {
                assert_eq!(answer.problem().kind, ProblemKind::MethodNotAllowed);
            }
        }
    }
    assert_eq!(api.get("/v1/nothing").problem().kind, ProblemKind::UnknownResource);
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document: Value = serde_json::from_str(&napa_host::server::document()).unwrap();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            references.extend(entries.get("$ref").and_then(Value::as_str).map(str::to_owned));
            entries.values().for_each(|value| collect(value, references));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
