//! Errors on their way to a Flight client: a gRPC status whose text begins with the SQLSTATE, and whose details carry every field that
//! PostgreSQL gave (`google.rpc.ErrorInfo`, its `reason` the SQLSTATE, its `domain` `postgresql.org`). ✗ what went wrong.

use super::decode::Unfit;
use crate::wire::message::{ErrorReport, Fields};
use prost::Message;
use std::collections::HashMap;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// The header that repeats the SQLSTATE, for drivers that do not show details.
pub const SQLSTATE_HEADER: &str = "x-sqlstate";

/// PostgreSQL's names for the fields of an ErrorResponse.
const FIELDS: [(u8, &str); 14] = [
    (b'V', "severity"),
    (b'C', "sqlstate"),
    (b'M', "message"),
    (b'D', "detail"),
    (b'H', "hint"),
    (b'P', "position"),
    (b'p', "internal_position"),
    (b'q', "internal_query"),
    (b'W', "where"),
    (b's', "schema"),
    (b't', "table"),
    (b'c', "column"),
    (b'd', "datatype"),
    (b'n', "constraint"),
];

/// An error with its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(HashMap<String, String>);

/// `google.rpc.Status`, `google.rpc.ErrorInfo` and the Any between them.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyMessage {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

impl Failure {
    pub fn new(sqlstate: &str, message: impl Into<String>) -> Failure {
        Failure::from(ErrorReport::error(sqlstate, message))
    }

    pub fn hint(mut self, hint: &str) -> Failure {
        self.0.insert("hint".into(), hint.into());
        self
    }

    /// Of the body of an ErrorResponse.
    pub fn read(body: &[u8]) -> Failure {
        let fields = Fields::head(body);
        let known = |(code, name): (u8, &str)| {
            fields.get(code).map(|v| (name.to_owned(), String::from_utf8_lossy(v).into_owned()))
        };
        Failure(FIELDS.into_iter().filter_map(known).collect())
    }

    /// The connection to PostgreSQL, or the session, is gone.
    pub fn lost() -> Failure {
        Failure::new("08006", "the session has ended").hint("Log in again.")
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn sqlstate(&self) -> &str {
        self.get("sqlstate")
    }

    pub fn status(&self) -> Status {
        let mut text = format!("{}: {}", self.sqlstate(), self.get("message"));
        for (label, name) in [("DETAIL", "detail"), ("HINT", "hint")] {
            if !self.get(name).is_empty() {
                text.push_str(&format!("\n{label}:  {}", self.get(name)));
            }
        }
        let code = code(self.sqlstate());
        let info = ErrorInfo { reason: self.sqlstate().into(), domain: "postgresql.org".into(), metadata: self.0.clone() };
        let any = AnyMessage { type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(), value: info.encode_to_vec() };
        let details = RpcStatus { code: code as i32, message: text.clone(), details: vec![any] };
        let mut headers = MetadataMap::new();
        if let Ok(value) = self.sqlstate().parse() {
            headers.insert(SQLSTATE_HEADER, value);
        }
        Status::with_details_and_metadata(code, text, details.encode_to_vec().into(), headers)
    }
}

impl From<ErrorReport> for Failure {
    fn from(e: ErrorReport) -> Failure {
        let mut fields = HashMap::from([
            ("severity".to_owned(), e.severity.to_owned()),
            ("sqlstate".to_owned(), e.sqlstate),
            ("message".to_owned(), e.message),
        ]);
        fields.extend(e.detail.map(|d| ("detail".to_owned(), d)));
        fields.extend(e.hint.map(|h| ("hint".to_owned(), h)));
        Failure(fields)
    }
}

impl From<Unfit> for Failure {
    fn from(e: Unfit) -> Failure {
        e.report().into()
    }
}

impl From<Failure> for Status {
    fn from(e: Failure) -> Status {
        e.status()
    }
}

/// The gRPC code that comes closest; drivers choose the kind of their exception by it.
fn code(sqlstate: &str) -> Code {
    match sqlstate {
        "42501" => Code::PermissionDenied,
        "57014" => Code::Cancelled,
        "08P01" => Code::InvalidArgument,
        "42P01" | "42703" | "42883" | "42704" | "3D000" | "3F000" => Code::NotFound,
        "42P07" | "42710" | "42701" | "42723" | "42P06" | "23505" => Code::AlreadyExists,
        "55006" => Code::FailedPrecondition,
        s => match s.get(..2).unwrap_or("") {
            "28" => Code::Unauthenticated,
            "08" | "57" => Code::Unavailable,
            "0A" => Code::Unimplemented,
            "22" | "42" | "26" | "34" => Code::InvalidArgument,
            "23" | "25" | "55" | "2B" | "2D" | "3B" => Code::FailedPrecondition,
            "40" => Code::Aborted,
            "53" | "54" => Code::ResourceExhausted,
            _ => Code::Internal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_details_carry_every_field() {
        let failure = Failure::read(b"SERROR\0VERROR\0C42P01\0Mrelation \"x\" does not exist\0P15\0\0");
        let status = failure.status();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "42P01: relation \"x\" does not exist");
        let details = RpcStatus::decode(status.details()).unwrap();
        let info = ErrorInfo::decode(&*details.details[0].value).unwrap();
        assert_eq!(info.reason, "42P01");
        assert_eq!(info.metadata["position"], "15");
        assert_eq!(status.metadata().get(SQLSTATE_HEADER).unwrap(), "42P01");
    }
}
