//! Requests made from the served document, and spoilt: whatever comes, the answer is none of the daemon's own failures.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::{Answer, Api};

/// How deep made-up values go.
const DEPTH_MAX: usize = 8;

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    /// Once in `times`.
    fn hits(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Values that a document describes, or nearly.
struct Shapes<'a> {
    document: &'a Value,
    dice: Dice,
    /// One value in so many is junk.
    junk_every: usize,
}

impl Shapes<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if depth > DEPTH_MAX || self.dice.hits(self.junk_every) {
            return self.junk(depth);
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.document.pointer(reference.trim_start_matches('#')).unwrap();
            return self.value(target, depth);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(choices) = schema[key].as_array() {
                let choice = self.dice.pick(choices);
                return self.value(choice, depth);
            }
        }
        if let Some(words) = schema["enum"].as_array() {
            return self.dice.pick(words).clone();
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        match kinds.is_empty() {
            true => self.junk(depth),
            false => match *self.dice.pick(&kinds) {
                "object" => self.object(schema, depth),
                "array" => (0..self.dice.below(3)).map(|_| self.value(&schema["items"], depth + 1)).collect(),
                "string" => self.text(),
                "integer" | "number" => self.number(),
                "boolean" => json!(self.dice.hits(2)),
                _ => Value::Null,
            },
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let mut object = Map::new();
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            let is_wanted =
                if required.contains(&key.as_str()) { !self.dice.hits(20) } else { self.dice.hits(4) };
            if is_wanted {
                object.insert(key.clone(), self.value(schema, depth + 1));
            }
        }
        if self.dice.hits(20) {
            object.insert("surprise".into(), self.junk(depth));
        }
        Value::Object(object)
    }

    fn text(&mut self) -> Value {
        let texts = [
            "web",
            "a",
            "",
            "/dev/null",
            "/no/such",
            "512M",
            "33554432",
            "0",
            "-1",
            "99999999999999999999T",
            "tap0",
            "02:00:5e:10:00:01",
            "auto",
            "a/b",
            "..",
            "ä\u{0}\n",
            "never",
            "stdio",
            "\u{1f980}",
        ];
        match self.dice.hits(10) {
            true => json!("x".repeat(self.dice.below(5000))),
            false => json!(self.dice.pick(&texts)),
        }
    }

    fn number(&mut self) -> Value {
        let numbers = [0, 1, 2, 3, 64, 65, 4096, 1 << 25, 1 << 32, i64::MAX, -1, i64::MIN];
        match self.dice.below(6) {
            0 => json!(u64::MAX),
            1 => json!(1.5e300),
            _ => json!(self.dice.pick(&numbers)),
        }
    }

    fn junk(&mut self, depth: usize) -> Value {
        match self.dice.below(if depth > DEPTH_MAX { 4 } else { 6 }) {
            0 => Value::Null,
            1 => self.number(),
            2 => self.text(),
            3 => json!(self.dice.hits(2)),
            4 => (0..self.dice.below(4)).map(|_| self.junk(depth + 1)).collect(),
            _ => json!({ "name": self.junk(depth + 1), "config": self.junk(depth + 1) }),
        }
    }
}

/// One request for an operation of the document.
fn request(api: &Api, shapes: &mut Shapes<'_>, method: &str, path: &str, operation: &Value) -> Answer {
    let names = ["web", "a", "nobody", "%00", "%ff", "..", "a%2Fb", "x%20y", "-", "web/../web"];
    let name = *shapes.dice.pick(&names);
    let mut path = path.replace("{name}", name);
    if shapes.dice.hits(3) {
        let queries =
            ["?lines=1", "?lines=-1", "?lines=x&lines=2", "?follow=maybe", "?%ff=%00", "?=&&", "?surprise=1"];
        let query: &&str = shapes.dice.pick(&queries);
        path.push_str(query);
    }
    let content = &operation["requestBody"]["content"]["application/json"]["schema"];
    let mut body = match content {
        Value::Null => Vec::new(),
        schema => shapes.value(schema, 0).to_string().into_bytes(),
    };
    if shapes.dice.hits(10) {
        body.truncate(shapes.dice.below(body.len() + 1));
    }
    if shapes.dice.hits(20) {
        body.extend([0xff, 0x00, b'{']);
    }
    let types = [
        "application/json",
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "",
        "\u{1}",
    ];
    let content_type = *shapes.dice.pick(&types);
    api.send(&method.to_uppercase(), &path, content_type, &body)
}

fn check(answer: &Answer, what: &str) {
    assert!(answer.status < 500, "{what}: {answer:?}");
    // What is no HTTP is refused before it gets to a route, and has no body then.
    if answer.status >= 400 && !answer.body.is_empty() {
        let problem = answer.problem();
        assert!(!problem.detail.is_empty() || !problem.title.is_empty(), "{what}: {problem:?}");
    }
}

#[test]
fn no_request_makes_the_daemon_fail() {
    let api = Api::new();
    let document = api.get("/openapi.json").value();
    let operations: Vec<(String, String, Value)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            methods.iter().map(|(method, operation)| (method.clone(), path.clone(), operation.clone()))
        })
        .collect();
    assert!(operations.len() >= 16, "{operations:?}");
    proptest!(ProptestConfig::with_cases(96), |(seed in any::<u64>(), junk_every in 4_usize..200)| {
        let mut shapes = Shapes { document: &document, dice: Dice(seed), junk_every };
        for (method, path, operation) in &operations {
            let answer = request(&api, &mut shapes, method, path, operation);
            check(&answer, &format!("{method} {path}"));
        }
    });
    // It still answers, and what was created can be listed.
    assert_eq!(api.get("/v1/vms").status, 200);
}
