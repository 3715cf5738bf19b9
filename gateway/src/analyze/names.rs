//! Names of types, functions and nodes for the reasons that people read. ✗ decisions.

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

/// A function by the name of what it does where that is known here, else by its number.
pub fn function(func: u32) -> String {
    let name = match func {
        868 | 872 => "initcap",
        870 => "lower",
        871 => "upper",
        877 | 883 | 936 | 937 => "substr",
        849 => "position",
        873 | 879 => "lpad",
        874 | 880 => "rpad",
        875 | 881 | 876 | 882 | 884 | 885 => "trim",
        2087 => "replace",
        2088 => "split_part",
        1598 | 1599 => "random",
        6199 | 6200 | 6201 | 6202 | 6203 | 6204 => "extract",
        1171 | 2021 | 1384 | 1172 => "date_part",
        1770 | 2049 | 1772 | 1773 | 1774 | 1775 | 1776 => "to_char",
        1778 => "to_timestamp",
        1199 | 2058 | 1386 | 2059 => "age",
        2284 | 2285 => "regexp_replace",
        2764 | 2763 => "regexp_matches",
        1254 => "~",
        1256 => "!~",
        1238 => "~*",
        1239 => "!~*",
        1633 => "ILIKE",
        1634 => "NOT ILIKE",
        2626 => "pg_sleep",
        1709 | 1710 => "trunc",
        1711 | 2167 => "ceil",
        1712 => "floor",
        1730 | 1342 | 1344 => "sqrt",
        1732 | 1734 => "power or exp",
        1158 => "to_timestamp",
        3058 | 3059 => "concat",
        3061 => "right",
        3060 => "left",
        2311 | 2321 => "md5",
        1189 | 1190 | 2032 | 2033 => "timestamp with interval",
        1188 | 2031 => "difference of timestamps",
        1140 | 1141 | 1142 => "date arithmetic",
        4046 => "jsonb @>",
        4047 => "jsonb ?",
        _ => "",
    };
    if name.is_empty() {
        format!("function with oid {func}")
    } else {
        format!("function {name} (oid {func})")
    }
}

/// An aggregate by name, or by number.
pub fn aggregate(func: u32) -> String {
    let name = match func {
        2100..=2106 => "avg",
        2107..=2114 => "sum",
        2115..=2130 | 2244 | 2797 | 3526 | 3564 | 2050 | 5099 => "max",
        2131..=2146 | 2245 | 2798 | 3527 | 3565 | 2051 | 5100 => "min",
        2147 | 2803 => "count",
        2154..=2159 | 2712..=2717 => "stddev",
        2148..=2153 | 2718..=2723 => "variance",
        2335 | 4053 => "array_agg",
        3538 | 3545 => "string_agg",
        3175 | 3267 | 3197 | 3270 => "json aggregate",
        3972 | 3974 | 3978 | 3980 | 3976 | 3982 => "percentile",
        3984 => "mode",
        _ => "",
    };
    if name.is_empty() {
        format!("aggregate with oid {func}")
    } else {
        format!("aggregate {name} (oid {func})")
    }
}

/// An expression node in words.
pub fn node(expr: &Expr) -> String {
    match expr {
        Expr::SubLink { .. } => "a sub-select in an expression".into(),
        Expr::Window { .. } => "a window function".into(),
        Expr::Array { .. } => "an array".into(),
        Expr::MinMax { greatest: true, .. } => "GREATEST".into(),
        Expr::MinMax { .. } => "LEAST".into(),
        Expr::SqlValue { op, .. } => format!("{op:?}"),
        Expr::Param(_) => "a parameter that is not the client's".into(),
        Expr::Unknown(name) => match name.as_str() {
            "ROWCOMPARE" | "ROWCOMPAREEXPR" | "ROW" | "ROWEXPR" => "a row expression".into(),
            "GROUPINGFUNC" => "GROUPING()".into(),
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
