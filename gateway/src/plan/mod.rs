//! CONTRACT used by session/lake.rs: keep these names and fields, replace the bodies.

use crate::analyze::Analysis;
use datafusion::datasource::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub enum Value {
    Null,
}

impl Value {
    /// `bytes` in PostgreSQL's binary format; None is NULL
    pub fn from_pg_binary(_type_oid: u32, _bytes: Option<&[u8]>) -> Result<Value, PlanError> {
        Ok(Value::Null)
    }
}

pub struct PlanInputs {
    /// in the order of Analysis::params
    pub params: Vec<Value>,
    /// in the order of Analysis::folds
    pub folded: Vec<Value>,
    pub zone: pgexact::Zone,
    /// by relid, or by the function OID of a virtual table. A tiered provider's schema: the columns of TableUse::attnums in
    /// that order under their lake names.
    pub providers: HashMap<u32, Arc<dyn TableProvider>>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{0}")]
    Unproven(String),
    #[error("{message}")]
    Postgres { sqlstate: String, message: String },
    #[error("{0}")]
    Internal(String),
}

pub fn plan(_analysis: &Analysis, _inputs: &PlanInputs) -> Result<LogicalPlan, PlanError> {
    Err(PlanError::Unproven("not there yet".into()))
}
