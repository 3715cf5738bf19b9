//! Messages of Flight that arrow-flight has no types for: session options (`Flight.proto` of Apache Arrow). ✗ what they do.

use prost::{Message, Oneof};
use std::collections::HashMap;

pub const SET_OPTIONS: &str = "SetSessionOptions";
pub const GET_OPTIONS: &str = "GetSessionOptions";
pub const CLOSE: &str = "CloseSession";
pub const CANCEL_INFO: &str = "CancelFlightInfo";

/// Values of `SetSessionOptionsResult.ErrorValue`.
pub const INVALID_NAME: i32 = 1;
pub const INVALID_VALUE: i32 = 2;
/// `CloseSessionResult.Status.CLOSED`.
pub const CLOSED: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub struct StringList {
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(StringList),
}

#[derive(Clone, PartialEq, Message)]
pub struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    pub value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SetOptions {
    #[prost(map = "string, message", tag = "1")]
    pub options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct OptionError {
    #[prost(int32, tag = "1")]
    pub value: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct SetOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CloseResult {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

impl OptionValue {
    pub fn text(value: impl Into<String>) -> OptionValue {
        OptionValue { value: Some(Value::Text(value.into())) }
    }

    /// As a setting of PostgreSQL's; None: it is to be as it was.
    pub fn setting(&self) -> Option<String> {
        Some(match self.value.as_ref()? {
            Value::Text(v) => v.clone(),
            Value::Bool(v) => if *v { "on" } else { "off" }.into(),
            Value::Int(v) => v.to_string(),
            Value::Double(v) => v.to_string(),
            Value::List(v) => v.values.join(", "),
        })
    }
}
