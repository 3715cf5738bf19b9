//! Names of types, functions and nodes for the reasons that people read. ✗ decisions.

use super::registry;
use pgtree::tree::{Expr, JsonKind, RteKind, SqlValueOp};

/// A type by name, or by number where it is not one of the lake's.
pub fn type_name(oid: u32) -> String {
    match oid {
        0 => "unknown".into(),
        18 => "\"char\"".into(),
        19 => "name".into(),
        26 => "oid".into(),
        114 => "json".into(),
        869 => "inet".into(),
        1042 => "char(n)".into(),
        1083 => "time".into(),
        1266 => "timetz".into(),
        2205 => "regclass".into(),
        2249 => "record".into(),
        _ => match (
            pgtree::oid::type_name(oid),
            pgtree::oid::array_element(oid).and_then(pgtree::oid::type_name),
        ) {
            (Some(name), _) => name.into(),
            (None, Some(element)) => format!("{element}[]"),
            (None, None) => format!("with oid {oid}"),
        },
    }
}

/// A function by name where it was judged, else by its number.
pub fn function(func: u32) -> String {
    // Those whose names are operators are better known by these.
    let name = match func {
        1254 => "~",
        1256 => "!~",
        1238 => "~*",
        1239 => "!~*",
        1633 => "ILIKE",
        1634 => "NOT ILIKE",
        4046 => "jsonb @>",
        4047 => "jsonb ?",
        _ => registry::function(func).map_or("", |f| f.name),
    };
    if name.is_empty() {
        format!("function with oid {func}")
    } else {
        format!("function {name} (oid {func})")
    }
}

/// An aggregate by name, or by number.
pub fn aggregate(func: u32) -> String {
    match registry::aggregate(func) {
        Some(known) => format!("aggregate {} (oid {func})", known.name),
        None => format!("aggregate with oid {func}"),
    }
}

/// An expression node in words.
pub fn node(expr: &Expr) -> String {
    match expr {
        Expr::SubLink(_) => "a sub-select in an expression".into(),
        Expr::Window(_) => "a window function".into(),
        Expr::Grouping { .. } => "GROUPING()".into(),
        Expr::Array { .. } => "an ARRAY[...]".into(),
        Expr::MinMax { greatest: true, .. } => "GREATEST".into(),
        Expr::MinMax { .. } => "LEAST".into(),
        Expr::SqlValue { op, .. } => sql_value(*op).into(),
        Expr::Param(_) => "a parameter that is not the client's".into(),
        Expr::Row { .. } => "a ROW(...)".into(),
        Expr::RowCompare { .. } => "a comparison of rows".into(),
        Expr::Subscript(s) if s.assigned.is_some() => "an assignment to an element".into(),
        Expr::Subscript(s) if s.lower.is_empty() => "a subscript".into(),
        Expr::Subscript(_) => "a slice of an array".into(),
        Expr::Field { .. } => "a field of a composite value".into(),
        Expr::ArrayCoerce { type_oid, .. } => format!("a cast of an array to type {}", type_name(*type_oid)),
        Expr::ConvertRowtype { .. } => "a cast of a row to its parent's type".into(),
        Expr::CoerceToDomain { type_oid, .. } => format!("a cast to a domain (oid {type_oid})"),
        Expr::DomainValue { .. } => "VALUE of a domain".into(),
        Expr::SetToDefault { .. } => "DEFAULT".into(),
        Expr::CurrentOf { .. } => "WHERE CURRENT OF".into(),
        Expr::NextValue { .. } => "a sequence".into(),
        Expr::NamedArg { .. } => "a named argument".into(),
        Expr::Xml(xml) => format!("XML ({:?})", xml.op).to_ascii_uppercase(),
        Expr::Json(json) => match json.kind {
            JsonKind::Value | JsonKind::Constructor => "a constructor of JSON".into(),
            JsonKind::Is => "IS JSON".into(),
            JsonKind::Query => "JSON_VALUE, JSON_QUERY or JSON_EXISTS".into(),
            JsonKind::Behavior => "ON EMPTY or ON ERROR of JSON".into(),
        },
        Expr::List(_) => "a list".into(),
        Expr::Dropped => "a dropped column".into(),
        Expr::Unknown(name) => format!("node {name}"),
        _ => "an expression".into(),
    }
}

fn sql_value(op: SqlValueOp) -> &'static str {
    use SqlValueOp::*;
    match op {
        CurrentDate => "CURRENT_DATE",
        CurrentTime | CurrentTimeN => "CURRENT_TIME",
        CurrentTimestamp | CurrentTimestampN => "CURRENT_TIMESTAMP",
        LocalTime | LocalTimeN => "LOCALTIME",
        LocalTimestamp | LocalTimestampN => "LOCALTIMESTAMP",
        CurrentRole => "CURRENT_ROLE",
        CurrentUser => "CURRENT_USER",
        User => "USER",
        SessionUser => "SESSION_USER",
        CurrentCatalog => "CURRENT_CATALOG",
        CurrentSchema => "CURRENT_SCHEMA",
    }
}

/// A range table entry in words.
pub fn relation(kind: &RteKind, name: &str) -> String {
    match kind {
        RteKind::Relation { .. } => format!("relation \"{name}\" is not tiered"),
        RteKind::Function { .. } => format!("function \"{name}\" in FROM"),
        RteKind::Values { .. } => "VALUES in FROM".into(),
        RteKind::TableFunction(f) if f.json => "JSON_TABLE in FROM".into(),
        RteKind::TableFunction(_) => "XMLTABLE in FROM".into(),
        RteKind::NamedTuplestore { .. } => format!("the transition table \"{name}\""),
        RteKind::Unknown(_) => "something unknown in FROM".into(),
        _ => format!("\"{name}\" in FROM"),
    }
}
