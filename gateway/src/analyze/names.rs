//! Names of types, functions and nodes for the reasons that people read. ✗ decisions.

use super::registry;
use pgtree::tree::{Expr, RteKind};

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
        Expr::Array { .. } | Expr::ArrayCoerce { .. } => "an array".into(),
        Expr::Row(_) => "a row expression".into(),
        Expr::MinMax { greatest: true, .. } => "GREATEST".into(),
        Expr::MinMax { .. } => "LEAST".into(),
        Expr::SqlValue { op, .. } => format!("{op:?}"),
        Expr::Param(_) => "a parameter that is not the client's".into(),
        Expr::Unknown(name) => match name.as_str() {
            "ROWCOMPARE" | "ROWCOMPAREEXPR" | "ROW" | "ROWEXPR" => "a row expression".into(),
            "NAMEDARGEXPR" => "a named argument".into(),
            "SUBSCRIPTINGREF" => "a subscript".into(),
            "FIELDSELECT" => "a field of a composite value".into(),
            "COERCETODOMAIN" => "a domain".into(),
            "NEXTVALUEEXPR" => "a sequence".into(),
            other => format!("node {other}"),
        },
        _ => "an expression".into(),
    }
}

/// A range table entry in words.
pub fn relation(kind: &RteKind, name: &str) -> String {
    match kind {
        RteKind::Relation { .. } => format!("relation \"{name}\" is not tiered"),
        RteKind::Function { .. } => format!("function \"{name}\" in FROM"),
        RteKind::Values { .. } => "VALUES in FROM".into(),
        RteKind::Unknown(_) => "a table function or set-returning construct in FROM".into(),
        _ => format!("\"{name}\" in FROM"),
    }
}
