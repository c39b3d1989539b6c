//! Requests and responses (JSON-RPC 2.0 §4, §5).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{LineTooLong, MemoryCommand};
use crate::config::STOP_TIMEOUT_S_MAX;
use crate::config::nearest;

/// Error codes (JSON-RPC 2.0 §5.1).
pub mod code {
    /// The line is not JSON.
    pub const PARSE: i32 = -32700;
    /// The line is JSON, but not a request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The method does not take these parameters.
    pub const INVALID_PARAMS: i32 = -32602;
    /// napa failed.
    pub const INTERNAL: i32 = -32603;
    /// The VM cannot do that in its present state.
    pub const WRONG_STATE: i32 = -32000;
}

const VERSION: &str = "2.0";
const METHODS: [&str; 7] = ["status", "config", "pause", "resume", "brake", "stop", "kill"];

/// The longest time for which a brake holds a VM, in milliseconds: whoever is connected to the guest does not give it up.
pub const BRAKE_MS_MAX: u32 = 2000;

/// What follows from a request: the answer of its method, or why there is none.
pub type Reply = Result<Value, RpcError>;

/// What a VM is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing; say how it is.
    Status,
    /// Say how it is configured.
    Config,
    /// Stop the vCPUs.
    Pause,
    /// Let the vCPUs run again.
    Resume,
    /// Stop the vCPUs for a moment, so that the guest does not grow meanwhile.
    Brake {
        /// Let them run again by then, at most [`BRAKE_MS_MAX`] milliseconds. 0: at once.
        time_ms: u32,
    },
    /// Press the power button.
    Stop {
        /// Stop hard after this many seconds. `None`: after the bound of the configuration.
        timeout_s: Option<u32>,
    },
    /// Stop hard.
    Kill,
    /// Look at the VM's memory, or change what backs it.
    Memory(MemoryCommand),
}

/// What a response belongs to (JSON-RPC 2.0 §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A number.
    Number(serde_json::Number),
    /// A text.
    Text(String),
    /// The request could not be read far enough to find its id.
    Null,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the response will carry. `None`: a notification, which gets no response.
    pub id: Option<Id>,
    /// What to do.
    pub command: Command,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's.
    pub id: Id,
    /// What followed from the request.
    pub outcome: Reply,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// One of [`code`].
    pub code: i32,
    /// For people, on one line.
    pub message: String,
}

impl RpcError {
    /// An error with one of the codes of [`code`].
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<LineTooLong> for Response {
    fn from(error: LineTooLong) -> Self {
        Self { id: Id::Null, outcome: Err(RpcError::new(code::INVALID_REQUEST, error.to_string())) }
    }
}

impl Command {
    /// The name of the method.
    pub const fn method(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Config => "config",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Brake { .. } => "brake",
            Self::Stop { .. } => "stop",
            Self::Kill => "kill",
            Self::Memory(command) => command.method(),
        }
    }

    fn decode(method: &str, params: Option<&Value>) -> Result<Self, RpcError> {
        let params = Params { method, params };
        match method {
            "status" => params.none().map(|()| Self::Status),
            "config" => params.none().map(|()| Self::Config),
            "pause" => params.none().map(|()| Self::Pause),
            "resume" => params.none().map(|()| Self::Resume),
            "brake" => params.time_ms().map(|time_ms| Self::Brake { time_ms }),
            "stop" => params.timeout_s().map(|timeout_s| Self::Stop { timeout_s }),
            "kill" => params.none().map(|()| Self::Kill),
            _ => match MemoryCommand::decode(&params) {
                Some(command) => command.map(Self::Memory),
                None => Err(unknown_method(method)),
            },
        }
    }

    /// Parameters, by name; `None`: there are none.
    fn params(self) -> Option<Value> {
        match self {
            Self::Stop { timeout_s } => timeout_s.map(|timeout_s| json!({ "timeout_s": timeout_s })),
            Self::Brake { time_ms } => Some(json!({ "time_ms": time_ms })),
            Self::Memory(command) => command.params(),
            Self::Status | Self::Config | Self::Pause | Self::Resume | Self::Kill => None,
        }
    }
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// The response that refuses the line, or `None` where none may be sent: a notification that cannot be
    /// carried out (JSON-RPC 2.0 §4.1).
    pub fn decode(line: &[u8]) -> Result<Self, Option<Response>> {
        let refuse = |code, message: String| {
            Some(Response { id: Id::Null, outcome: Err(RpcError::new(code, message)) })
        };
        let value: Value = serde_json::from_slice(line)
            .map_err(|error| refuse(code::PARSE, format!("the line is not JSON: {error}")))?;
        let invalid =
            |what: &str| refuse(code::INVALID_REQUEST, format!("not a JSON-RPC 2.0 request: {what}"));
        let request =
            value.as_object().ok_or_else(|| invalid("a line is one object; batches are not taken"))?;
        if request.get("jsonrpc").and_then(Value::as_str) != Some(VERSION) {
            return Err(invalid("\"jsonrpc\" must be \"2.0\""));
        }
        let id = decode_id(request).ok_or_else(|| invalid("\"id\" must be a number or a text"))?;
        let method = request
            .get("method")
            .and_then(Value::as_str)
            .ok_or_else(|| invalid("\"method\" must be a text"))?;
        match Command::decode(method, request.get("params")) {
            Ok(command) => Ok(Self { id, command }),
            Err(error) => Err(id.map(|id| Response { id, outcome: Err(error) })),
        }
    }

    /// The request as a line, with its end.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = json!({ "jsonrpc": VERSION, "method": self.command.method() });
        if let Some(params) = self.command.params() {
            message["params"] = params;
        }
        if let Some(id) = &self.id {
            message["id"] = json!(id);
        }
        line(&message)
    }

    /// The response to this request; `None` to a notification.
    pub fn answer(self, outcome: Reply) -> Option<Response> {
        self.id.map(|id| Response { id, outcome })
    }
}

impl Response {
    /// The response as a line, with its end.
    pub fn encode(&self) -> Vec<u8> {
        line(&match &self.outcome {
            Ok(result) => json!({ "jsonrpc": VERSION, "id": self.id, "result": result }),
            Err(error) => json!({ "jsonrpc": VERSION, "id": self.id, "error": error }),
        })
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with the line: it is not JSON, or not a response.
    pub fn decode(line: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Wire {
            id: Id,
            #[serde(default, deserialize_with = "present")]
            result: Option<Value>,
            error: Option<RpcError>,
        }
        let Wire { id, result, error } = serde_json::from_slice(line)?;
        match (result, error) {
            (Some(result), None) => Ok(Self { id, outcome: Ok(result) }),
            (None, Some(error)) => Ok(Self { id, outcome: Err(error) }),
            _ => Err(serde::de::Error::custom("a response has either a result or an error")),
        }
    }
}

/// A result that is there, be it `null`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The answer of a method, from what it gives.
///
/// # Errors
/// The method's own error.
pub fn reply<T: Serialize>(result: Result<T, RpcError>) -> Reply {
    let value = serde_json::to_value(result?);
    value.map_err(|error| RpcError::new(code::INTERNAL, format!("the answer cannot be written: {error}")))
}

/// The parameters of a request, by name (JSON-RPC 2.0 §4.2).
pub(super) struct Params<'a> {
    pub method: &'a str,
    params: Option<&'a Value>,
}

impl Params<'_> {
    /// The parameters as a `T`, of which `what` says how they look: "takes one named parameter, ...".
    pub fn read<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T, RpcError> {
        match self.params {
            Some(params @ Value::Object(_)) => T::deserialize(params).map_err(|_| self.error(what)),
            None => T::deserialize(json!({})).map_err(|_| self.error(what)),
            Some(_) => Err(self.error(what)),
        }
    }

    /// Refuses parameters.
    pub fn none(&self) -> Result<(), RpcError> {
        let empty = match self.params {
            None => true,
            Some(Value::Object(params)) => params.is_empty(),
            Some(Value::Array(params)) => params.is_empty(),
            Some(_) => false,
        };
        if empty { Ok(()) } else { Err(self.error("takes no parameters")) }
    }

    fn timeout_s(&self) -> Result<Option<u32>, RpcError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Stop {
            #[serde(default)]
            timeout_s: Option<u32>,
        }
        let what = "takes one named parameter, \"timeout_s\", in whole seconds up to one day";
        let Stop { timeout_s } = self.read(what)?;
        match timeout_s {
            Some(timeout_s) if timeout_s > STOP_TIMEOUT_S_MAX => Err(self.error(what)),
            _ => Ok(timeout_s),
        }
    }

    fn time_ms(&self) -> Result<u32, RpcError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Brake {
            time_ms: u32,
        }
        let what = "takes one named parameter, \"time_ms\", in milliseconds up to 2000";
        let Brake { time_ms } = self.read(what)?;
        if time_ms > BRAKE_MS_MAX { Err(self.error(what)) } else { Ok(time_ms) }
    }

    /// Says how the parameters should look.
    pub fn error(&self, what: &str) -> RpcError {
        RpcError::new(code::INVALID_PARAMS, format!("{} {what}", self.method))
    }
}

/// `Some(None)`: no id, a notification. `None`: an id that is not one.
fn decode_id(request: &Map<String, Value>) -> Option<Option<Id>> {
    match request.get("id") {
        None => Some(None),
        Some(Value::Null) => Some(Some(Id::Null)),
        Some(Value::Number(number)) => Some(Some(Id::Number(number.clone()))),
        Some(Value::String(text)) => Some(Some(Id::Text(text.clone()))),
        Some(_) => None,
    }
}

fn unknown_method(method: &str) -> RpcError {
    let methods = [&METHODS[..], MemoryCommand::METHODS].concat();
    let hint = nearest(method, &methods).map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
    RpcError::new(
        code::METHOD_NOT_FOUND,
        format!("there is no method {method:?}{hint}; the methods are {}", methods.join(", ")),
    )
}

fn line(message: &Value) -> Vec<u8> {
    // Compact JSON holds no line break: serde_json writes those of a text as escapes.
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}
