//! Row-independent expressions: literals, parameters, and SQL for what PostgreSQL computes. The SQL names every function, operator and type in
//! `pg_catalog`, and every argument has the type it has in the tree, so that no search_path and no overload can give it another meaning.

use super::ir::Constant;
use super::registry::{self, Meaning};
use super::{Analyzer, Fold, Outcome, ParamUse, names, refuse};
use lake::types::DAY_MICROS;
use pgexact::datetime::{Kind, Unit};
use pgtree::oid::{self, Function};
use pgtree::tree::{Expr, SqlValueOp};
use pgtree::value::{Numeric, Value, uuid_text};

/// Bytes of one fold's SQL.
const MAX_SQL: usize = 64 << 10;

impl Analyzer<'_> {
    /// The value of an expression that does not depend on rows, and its type. None where it depends on rows, or is not one of the forms that
    /// PostgreSQL may compute ahead.
    pub(super) fn constant(&mut self, expr: &Expr) -> Outcome<Option<(Constant, u32)>> {
        match expr {
            // As text it would have to be equal byte by byte, numbers and keys too.
            Expr::Const(c) if c.datum.is_some() && oid::array_element(c.type_oid).unwrap_or(c.type_oid) == oid::JSONB => {
                refuse(format!("a constant of type {}", names::type_name(c.type_oid)))
            }
            Expr::Const(c) => match pgtree::value::from_datum(c.type_oid, c.datum.as_deref()) {
                Ok(value) => Ok(Some((Constant::Literal(value), c.type_oid))),
                Err(_) => refuse(format!("a constant of type {}", names::type_name(c.type_oid))),
            },
            Expr::Param(p) if p.kind == 0 => {
                let scalar = oid::array_element(p.type_oid).unwrap_or(p.type_oid);
                if oid::type_name(scalar).is_none() || scalar == oid::JSONB {
                    return refuse(format!("a parameter of type {}", names::type_name(p.type_oid)));
                }
                let used = ParamUse { number: p.id, type_oid: p.type_oid };
                let index = self.params.iter().position(|u| *u == used).unwrap_or_else(|| {
                    self.params.push(used);
                    self.params.len() - 1
                });
                Ok(Some((Constant::Param(index), p.type_oid)))
            }
            // Between text and varchar, and arrays of them, nothing changes but the name.
            Expr::Relabel { arg, type_oid, .. } if textual(*type_oid) && textual(arg.type_oid()) => {
                Ok(self.constant(arg)?.map(|(constant, _)| (constant, *type_oid)))
            }
            Expr::Collate { arg, .. } => self.constant(arg),
            Expr::Func(call) => {
                let meaning = registry::function(call.func).and_then(|f| f.rule.meaning());
                let literal = match (call.args.as_slice(), meaning) {
                    ([Expr::Const(c)], Some(Meaning::Of(Function::IntCast | Function::IntToNumeric))) => {
                        pgtree::value::from_datum(c.type_oid, c.datum.as_deref()).ok()
                    }
                    _ => None,
                };
                match literal.and_then(|value| convert(&value, call.type_oid)) {
                    Some(value) => Ok(Some((Constant::Literal(value), call.type_oid))),
                    None => Ok(self.fold(expr)),
                }
            }
            Expr::Op(_) | Expr::CoerceViaIo { .. } | Expr::SqlValue { .. } => Ok(self.fold(expr)),
            _ => Ok(None),
        }
    }

    /// Asks PostgreSQL for the value of `expr`, if it may be asked.
    fn fold(&mut self, expr: &Expr) -> Option<(Constant, u32)> {
        // PostgreSQL computes it when it plans, but for what it never plans: outputs of sub-selects that nobody reads. Of parameters it computes
        // it for each row once it keeps a plan for all values, and of no rows never.
        if (self.guarded > 0 || self.depth > 1 || (reads_param(expr) && !is_cast_param(expr))) && !total(expr, self.guarded == 0) {
            return None;
        }
        let sql = sql(expr).filter(|sql| sql.len() <= MAX_SQL)?;
        Some((self.folded(sql, expr.type_oid()), expr.type_oid()))
    }

    /// As [`Analyzer::constant`], cast by PostgreSQL to `type_oid` (in the session's zone).
    pub(super) fn constant_as(&mut self, expr: &Expr, type_oid: u32) -> Outcome<Constant> {
        // A date beyond all timestamps can be compared with one, and not be cast to one.
        if (self.guarded > 0 || self.depth > 1 || matches!(expr, Expr::Const(_))) && !total(expr, self.guarded == 0) {
            let (from, to) = (names::type_name(expr.type_oid()), names::type_name(type_oid));
            return refuse(format!("comparison of {from} with {to} where casting may raise an error"));
        }
        match (sql(expr), oid::type_name(type_oid)) {
            (Some(sql), Some(name)) if sql.len() <= MAX_SQL => {
                Ok(self.folded(format!("CAST({sql} AS pg_catalog.\"{name}\")"), type_oid))
            }
            _ => {
                let (from, to) = (names::type_name(expr.type_oid()), names::type_name(type_oid));
                refuse(format!("comparison of {from} with {to} where neither is a constant"))
            }
        }
    }

    fn folded(&mut self, sql: String, type_oid: u32) -> Constant {
        let fold = Fold { sql, type_oid };
        let index = self.folds.iter().position(|f| *f == fold).unwrap_or_else(|| {
            self.folds.push(fold);
            self.folds.len() - 1
        });
        Constant::Fold(index)
    }
}

/// text, varchar, and arrays of them.
fn textual(type_oid: u32) -> bool {
    matches!(oid::array_element(type_oid).unwrap_or(type_oid), oid::TEXT | oid::VARCHAR)
}

/// Widening of an integer literal. None where it would not fit or is no such cast.
fn convert(value: &Value, type_oid: u32) -> Option<Value> {
    let number = match value {
        Value::Null => return Some(Value::Null),
        Value::Int2(v) => i64::from(*v),
        Value::Int4(v) => i64::from(*v),
        Value::Int8(v) => *v,
        _ => return None,
    };
    match type_oid {
        oid::INT2 => number.try_into().ok().map(Value::Int2),
        oid::INT4 => number.try_into().ok().map(Value::Int4),
        oid::INT8 => Some(Value::Int8(number)),
        oid::NUMERIC => Numeric::parse(&number.to_string()).map(Value::Numeric),
        _ => None,
    }
}

/// Whether computing the expression raises no error: such a one may be computed although PostgreSQL might never have. Where `params` is set a
/// parameter counts as a time like most.
fn total(expr: &Expr, params: bool) -> bool {
    match expr {
        Expr::Const(c) => pgtree::value::from_datum(c.type_oid, c.datum.as_deref()).is_ok_and(|value| is_moderate(&value)),
        Expr::Param(_) => params,
        Expr::SqlValue { .. } => true,
        Expr::Func(call) => match (call.func, call.args.as_slice()) {
            // date_trunc of timestamptz and timestamp
            (1217 | 2020, [Expr::Const(unit), time]) => {
                let unit = pgtree::value::from_datum(unit.type_oid, unit.datum.as_deref());
                let kind = if call.func == 1217 { Kind::TimestampTz } else { Kind::Timestamp };
                matches!(unit, Ok(Value::Text(unit)) if Unit::parse(&unit, kind).is_ok()) && total(time, params)
            }
            // Wider integers
            (313 | 481 | 754, [Expr::Const(_)]) => true,
            // now, casts between date and timestamps
            (1299 | 2647 | 1174 | 1178 | 2024 | 2027 | 2028 | 2029 | 313 | 481 | 754, args) => args.iter().all(|arg| total(arg, params)),
            _ => false,
        },
        // timestamps and dates plus or minus intervals and days
        Expr::Op(call) => {
            matches!(call.func, 1189 | 1190 | 2032 | 2033 | 2071 | 2072 | 1141 | 1142) && call.args.iter().all(|arg| total(arg, params))
        }
        Expr::Relabel { arg, .. } => total(arg, params),
        _ => false,
    }
}

/// Times after Christ and before the year 10,000, and spans of up to a century: no few of them lead out of PostgreSQL's times.
fn is_moderate(value: &Value) -> bool {
    const YEARS: std::ops::Range<i64> = -719_162..2_932_897;
    const CENTURY: i64 = 36_525;
    let in_years = |us: i64| matches!(us, i64::MIN | i64::MAX) || YEARS.contains(&us.div_euclid(DAY_MICROS));
    match value {
        Value::Null => true,
        Value::Int2(days) => i64::from(*days).abs() <= CENTURY,
        Value::Int4(days) => i64::from(*days).abs() <= CENTURY,
        Value::Date(day) => matches!(*day, i32::MIN | i32::MAX) || YEARS.contains(&i64::from(*day)),
        Value::Timestamp(us) | Value::TimestampTz(us) => in_years(*us),
        Value::Interval { months, days, micros } => {
            i64::from(*months).abs() <= 1_200 && i64::from(*days).abs() <= CENTURY && micros.unsigned_abs() <= (CENTURY * DAY_MICROS) as u64
        }
        _ => false,
    }
}

fn reads_param(expr: &Expr) -> bool {
    match expr {
        Expr::Param(_) => true,
        Expr::Func(call) | Expr::Op(call) => call.args.iter().any(reads_param),
        Expr::CoerceViaIo { arg, .. } | Expr::Relabel { arg, .. } | Expr::Collate { arg, .. } => reads_param(arg),
        _ => false,
    }
}

/// A text that a client gave, as another type: drivers send times so.
fn is_cast_param(expr: &Expr) -> bool {
    match expr {
        Expr::Param(_) => true,
        Expr::CoerceViaIo { arg, .. } | Expr::Relabel { arg, .. } => is_cast_param(arg),
        _ => false,
    }
}

/// The SQL of an expression over constants and parameters. None for anything that is not on the lists.
fn sql(expr: &Expr) -> Option<String> {
    let typed = |type_oid: u32| oid::type_name(type_oid).map(|name| format!("pg_catalog.\"{name}\""));
    match expr {
        Expr::Const(c) => {
            let value = pgtree::value::from_datum(c.type_oid, c.datum.as_deref()).ok()?;
            let ty = typed(c.type_oid)?;
            Some(match literal(&value)? {
                Some(text) => format!("{}::{ty}", quoted(&text)),
                None => format!("NULL::{ty}"),
            })
        }
        Expr::Param(p) if p.kind == 0 && p.id > 0 => typed(p.type_oid).map(|_| format!("${}", p.id)),
        Expr::Func(call) if !call.retset && !call.variadic => {
            let function = oid::foldable_function(call.func).filter(|f| f.result == call.type_oid)?;
            let args: Option<Vec<_>> = call.args.iter().map(sql).collect();
            Some(format!("pg_catalog.\"{}\"({})", function.name, args?.join(", ")))
        }
        Expr::Op(call) if !call.retset => {
            let operator =
                oid::foldable_operator(call.op, call.func).filter(|o| o.result == call.type_oid)?;
            match call.args.as_slice() {
                [a, b] => Some(format!("({} OPERATOR(pg_catalog.{}) {})", sql(a)?, operator.name, sql(b)?)),
                [a] => Some(format!("(OPERATOR(pg_catalog.{}) {})", operator.name, sql(a)?)),
                _ => None,
            }
        }
        Expr::CoerceViaIo { arg, type_oid, .. } => {
            typed(arg.type_oid())?;
            Some(format!("CAST({} AS {})", sql(arg)?, typed(*type_oid)?))
        }
        Expr::Relabel { arg, type_oid, typmod: -1, .. } if textual(*type_oid) && textual(arg.type_oid()) => {
            Some(format!("CAST({} AS {})", sql(arg)?, typed(*type_oid)?))
        }
        Expr::SqlValue { op, typmod, .. } => {
            let precision = |name: &str| (0..=6).contains(typmod).then(|| format!("{name}({typmod})"));
            match op {
                SqlValueOp::CurrentDate => Some("CURRENT_DATE".into()),
                SqlValueOp::CurrentTimestamp => Some("CURRENT_TIMESTAMP".into()),
                SqlValueOp::CurrentTimestampN => precision("CURRENT_TIMESTAMP"),
                SqlValueOp::LocalTimestamp => Some("LOCALTIMESTAMP".into()),
                SqlValueOp::LocalTimestampN => precision("LOCALTIMESTAMP"),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Quotes a string so that it means the same whatever `standard_conforming_strings` says.
pub(in crate::analyze) fn quoted(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// The input text of a value under every DateStyle and IntervalStyle; Some(None) is NULL, None has no such text here.
pub(in crate::analyze) fn literal(value: &Value) -> Option<Option<String>> {
    Some(Some(match value {
        Value::Null => return Some(None),
        Value::Bool(v) => (if *v { "t" } else { "f" }).into(),
        Value::Int2(v) => v.to_string(),
        Value::Int4(v) => v.to_string(),
        Value::Int8(v) => v.to_string(),
        Value::Float4(v) => float(f64::from(*v), &v.to_string()),
        Value::Float8(v) => float(*v, &v.to_string()),
        Value::Numeric(v) => v.to_string(),
        Value::Text(v) => v.clone(),
        Value::Uuid(v) => uuid_text(v),
        Value::Date(i32::MAX) | Value::Timestamp(i64::MAX) | Value::TimestampTz(i64::MAX) => {
            "infinity".into()
        }
        Value::Date(i32::MIN) | Value::Timestamp(i64::MIN) | Value::TimestampTz(i64::MIN) => {
            "-infinity".into()
        }
        Value::Date(day) => {
            let (date, era) = date(i64::from(*day));
            format!("{date}{era}")
        }
        Value::Timestamp(us) => timestamp(*us, ""),
        Value::TimestampTz(us) => timestamp(*us, "+00"),
        Value::Interval { months, days, micros } => {
            let seconds = micros.unsigned_abs() / 1_000_000;
            // Hours are read as a 32-bit number.
            let hours = i32::try_from(seconds / 3600).ok()?;
            let sign = if *micros < 0 { '-' } else { '+' };
            format!(
                "{months:+} mons {days:+} days {sign}{hours:02}:{:02}:{:02}.{:06}",
                seconds / 60 % 60,
                seconds % 60,
                micros.unsigned_abs() % 1_000_000
            )
        }
        Value::Jsonb(_) | Value::Bytea(_) | Value::Xid8(_) | Value::Array { .. } => return None,
    }))
}

fn float(value: f64, shortest: &str) -> String {
    match value {
        v if v.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => shortest.into(),
    }
}

fn timestamp(us: i64, zone: &str) -> String {
    const DAY: i64 = 86_400_000_000;
    let (date, era) = date(us.div_euclid(DAY));
    let time = us.rem_euclid(DAY);
    let seconds = time / 1_000_000;
    format!(
        "{date} {:02}:{:02}:{:02}.{:06}{zone}{era}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        time % 1_000_000
    )
}

/// `YYYY-MM-DD` of a day since 1970-01-01 in the proleptic Gregorian calendar, and ` BC` where the year is one.
///
/// Algorithm: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
fn date(day: i64) -> (String, &'static str) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (shown, suffix) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{shown:04}-{month:02}-{day_of_month:02}"), suffix)
}
