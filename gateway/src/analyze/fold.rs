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
        let mut sure = Vec::new();
        // What is immutable PostgreSQL computes when it plans, but for what it never plans (outputs of sub-selects that nobody reads); all else, and
        // parameters once it keeps a plan for all values, of each row, and of no rows never.
        let always = self.guarded == 0 && self.depth <= 1 && is_immutable(expr);
        let total = is_short(expr) && total(expr, &mut sure);
        if !always && !total {
            return None;
        }
        let sql = sql(expr).filter(|sql| sql.len() <= MAX_SQL)?;
        Some((self.folded(sql, sure, expr.type_oid(), total), expr.type_oid()))
    }

    /// As [`Analyzer::constant`], cast by PostgreSQL to `type_oid` (in the session's zone).
    pub(super) fn constant_as(&mut self, expr: &Expr, type_oid: u32) -> Outcome<Constant> {
        let (from, to) = (names::type_name(expr.type_oid()), names::type_name(type_oid));
        let (Some(sql), Some(name)) = (sql(expr).filter(|sql| sql.len() <= MAX_SQL), oid::type_name(type_oid)) else {
            return refuse(format!("comparison of {from} with {to} where neither is a constant"));
        };
        // A date beyond all timestamps can be compared with one, and not be cast to one.
        let mut sure = Vec::new();
        if !is_short(expr) || !total(expr, &mut sure) {
            return refuse(format!("comparison of {from} with {to} where casting may raise an error"));
        }
        Ok(self.folded(format!("CAST({sql} AS pg_catalog.\"{name}\")"), sure, type_oid, true))
    }

    /// `sure`: what parameters must be like for `sql` to raise no error. Where they are not, it is not computed, and PostgreSQL answers.
    fn folded(&mut self, mut sql: String, sure: Vec<String>, type_oid: u32, moderate: bool) -> Constant {
        if !sure.is_empty() {
            sql = format!("CASE WHEN {} THEN {sql} END", sure.join(" AND "));
        }
        for condition in sure {
            if !self.sure.contains(&condition) {
                self.sure.push(condition);
            }
        }
        let fold = Fold { sql, type_oid, moderate };
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

/// Whether computing the expression raises no error: such a one may be computed although PostgreSQL might never have. Parameters must be
/// moderate for it: conditions that say so go to `sure`.
fn total(expr: &Expr, sure: &mut Vec<String>) -> bool {
    match expr {
        Expr::Const(c) => pgtree::value::from_datum(c.type_oid, c.datum.as_deref()).is_ok_and(|value| is_moderate(&value)),
        Expr::Param(p) if p.kind == 0 => moderate(p.id, p.type_oid).map(|condition| sure.push(condition)).is_some(),
        // Everything has a text.
        Expr::CoerceViaIo { arg, type_oid, .. } if textual(*type_oid) && matches!(**arg, Expr::Param(_)) => true,
        // A text that a client gave, as another type: drivers send times so.
        Expr::CoerceViaIo { arg, type_oid, .. } => match param_text(arg) {
            Some(id) => readable(id, *type_oid).map(|condition| sure.push(condition)).is_some(),
            None => matches!(*type_oid, oid::DATE | oid::TIMESTAMP | oid::TIMESTAMPTZ) && word(arg).is_some_and(|text| is_plain_time(&text)),
        },
        Expr::SqlValue { .. } => true,
        Expr::Func(call) => match (call.func, call.args.as_slice()) {
            // date_trunc of timestamptz and timestamp
            (1217 | 2020, [unit, time]) => {
                let kind = if call.func == 1217 { Kind::TimestampTz } else { Kind::Timestamp };
                word(unit).is_some_and(|unit| Unit::parse(&unit, kind).is_ok()) && total(time, sure)
            }
            (1284, [unit, time, zone]) => {
                word(unit).is_some_and(|unit| Unit::parse(&unit, Kind::TimestampTz).is_ok()) && is_zone(zone) && total(time, sure)
            }
            // to_timestamp, as some tools write times
            (1778, [text, template]) => {
                let known = |template: String| template.strip_prefix("YYYY-MM-DD").is_some_and(|rest| TEMPLATES.contains(&rest));
                word(template).is_some_and(known) && word(text).is_some_and(|text| is_plain_time(&text) && !text.contains('T'))
            }
            // AT TIME ZONE
            (1159 | 2069, [zone, time]) => is_zone(zone) && total(time, sure),
            // Wider integers
            (313 | 481 | 754, [Expr::Const(_)]) => true,
            // Fractions of seconds
            (1961 | 1967, [time, Expr::Const(c)]) => {
                matches!(pgtree::value::from_datum(c.type_oid, c.datum.as_deref()), Ok(Value::Int4(0..=6))) && total(time, sure)
            }
            // now, casts between date and timestamps
            (1299 | 2647 | 1174 | 1178 | 2024 | 2027 | 2028 | 2029 | 313 | 481 | 754, args) => args.iter().all(|arg| total(arg, sure)),
            _ => false,
        },
        // Multiples of an interval
        Expr::Op(call) if matches!(call.func, 1618 | 1624) => match call.args.as_slice() {
            [a, b] if call.func == 1618 => is_moderate_multiple(a, b),
            [a, b] => is_moderate_multiple(b, a),
            _ => false,
        },
        // Differences of dates
        Expr::Op(call) if call.func == 1140 => call.args.iter().all(|arg| !has_infinity(arg) && total(arg, sure)),
        // timestamps and dates plus or minus intervals and days
        Expr::Op(call) => {
            const SHIFTS: [u32; 11] = [1141, 1142, 1189, 1190, 2032, 2033, 2071, 2072, 2548, 2549, 2550];
            SHIFTS.contains(&call.func) && call.args.iter().all(|arg| total(arg, sure))
        }
        Expr::Relabel { arg, .. } => total(arg, sure),
        _ => false,
    }
}

/// What may stand behind the day in a template of to_timestamp.
const TEMPLATES: [&str; 4] = ["", " HH24:MI", " HH24:MI:SS", " HH24:MI:SS.US"];

/// A day after Christ and before the year 10,000 (no 29th of February), and perhaps a time of day: read alike in every style.
fn is_plain_time(text: &str) -> bool {
    let number = |part: Option<&str>, digits: usize| -> Option<u32> {
        part.filter(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
    };
    let (day, time) = text.split_once([' ', 'T']).map_or((text, None), |(day, time)| (day, Some(time)));
    let mut parts = day.split('-');
    let (year, month, day) = (number(parts.next(), 4), number(parts.next(), 2), number(parts.next(), 2));
    let longest = match month {
        Some(2) => 28,
        Some(4 | 6 | 9 | 11) => 30,
        Some(1..=12) => 31,
        _ => 0,
    };
    let is_day = parts.next().is_none() && year.is_some_and(|y| y > 0) && day.is_some_and(|d| (1..=longest).contains(&d));
    let Some(time) = time else { return is_day };
    let (time, fraction) = time.split_once('.').map_or((time, None), |(time, fraction)| (time, Some(fraction)));
    let mut parts = time.split(':');
    let (hour, minute, second) = (number(parts.next(), 2), number(parts.next(), 2), parts.next());
    is_day
        && parts.next().is_none()
        && hour.is_some_and(|h| h < 24)
        && minute.is_some_and(|m| m < 60)
        && second.map_or(fraction.is_none(), |second| number(Some(second), 2).is_some_and(|s| s < 60))
        && fraction.is_none_or(|f| (1..=6).contains(&f.len()) && f.bytes().all(|b| b.is_ascii_digit()))
}

/// The text of a constant.
fn word(expr: &Expr) -> Option<String> {
    let Expr::Const(c) = expr else { return None };
    match pgtree::value::from_datum(c.type_oid, c.datum.as_deref()) {
        Ok(Value::Text(text)) => Some(text),
        _ => None,
    }
}

/// Whether so few steps lead to it that what begins moderately stays among PostgreSQL's times.
fn is_short(expr: &Expr) -> bool {
    const STEPS: usize = 16;
    let mut steps = 0;
    pgtree::tree::walk_expr(expr, &mut |part| steps += usize::from(matches!(part, pgtree::tree::Part::Expr(Expr::Op(_)))));
    steps <= STEPS
}

fn has_infinity(expr: &Expr) -> bool {
    let mut found = false;
    pgtree::tree::walk_expr(expr, &mut |part| {
        if let pgtree::tree::Part::Expr(Expr::Const(c)) = part {
            let value = pgtree::value::from_datum(c.type_oid, c.datum.as_deref());
            let infinite = |value| matches!(value, Value::Date(i32::MIN | i32::MAX) | Value::Timestamp(i64::MIN | i64::MAX) | Value::TimestampTz(i64::MIN | i64::MAX));
            found |= value.is_ok_and(infinite);
        }
    });
    found
}

/// A zone that PostgreSQL knows as well.
fn is_zone(expr: &Expr) -> bool {
    word(expr).is_some_and(|name| pgexact::Zone::parse(&name).is_some())
}

/// Whether an interval times a number, both constants, is a moderate one.
fn is_moderate_multiple(span: &Expr, factor: &Expr) -> bool {
    let number = |e: &Expr| match e {
        Expr::Const(c) => match pgtree::value::from_datum(c.type_oid, c.datum.as_deref()) {
            Ok(Value::Int2(v)) => Some(f64::from(v)),
            Ok(Value::Int4(v)) => Some(f64::from(v)),
            Ok(Value::Float8(v)) => Some(v),
            _ => None,
        },
        _ => None,
    };
    let factor = match factor {
        // smallint and integer as float8
        Expr::Func(call) if matches!(call.func, 235 | 316) => call.args.first().and_then(number),
        other => number(other),
    };
    let Expr::Const(c) = span else { return false };
    let (Ok(Value::Interval { months, days, micros }), Some(factor)) = (pgtree::value::from_datum(c.type_oid, c.datum.as_deref()), factor) else {
        return false;
    };
    let span = f64::from(months).abs() * 31.0 + f64::from(days).abs() + micros.unsigned_abs() as f64 / DAY_MICROS as f64;
    (span * factor.abs()) < CENTURY as f64
}

/// Whether PostgreSQL computes the expression, unless it reads a parameter, when it plans: its volatility, of what is on the lists of what may be
/// folded.
fn is_immutable(expr: &Expr) -> bool {
    const STABLE: [u32; 9] = [1174, 1178, 1217, 1284, 1299, 1778, 2027, 2028, 2647];
    let plain = |type_oid: u32| {
        matches!(
            type_oid,
            oid::BOOL | oid::INT2 | oid::INT4 | oid::INT8 | oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC | oid::TEXT | oid::VARCHAR | oid::UUID
        )
    };
    match expr {
        Expr::Const(_) => true,
        Expr::Func(call) => !STABLE.contains(&call.func) && call.args.iter().all(is_immutable),
        // timestamptz plus or minus an interval
        Expr::Op(call) => !matches!(call.func, 1189 | 1190 | 2549) && call.args.iter().all(is_immutable),
        Expr::CoerceViaIo { arg, type_oid, .. } => plain(arg.type_oid()) && plain(*type_oid) && is_immutable(arg),
        Expr::Relabel { arg, .. } | Expr::Collate { arg, .. } => is_immutable(arg),
        _ => false,
    }
}

/// The condition under which a parameter is as moderate as [`is_moderate`] wants it.
fn moderate(number: i64, type_oid: u32) -> Option<String> {
    let between = |least: &str, greatest: &str| {
        let name = oid::type_name(type_oid)?;
        let bound = |value: &str| format!("'{value}'::pg_catalog.\"{name}\"");
        Some(format!(
            "(${number} OPERATOR(pg_catalog.>=) {} AND ${number} OPERATOR(pg_catalog.<=) {}) IS NOT FALSE",
            bound(least),
            bound(greatest)
        ))
    };
    match type_oid {
        oid::DATE | oid::TIMESTAMP => between("0001-01-01", "9999-12-31"),
        oid::TIMESTAMPTZ => between("0001-01-02 00:00:00+00", "9999-12-30 00:00:00+00"),
        oid::INT2 => between("-32767", "32767"),
        oid::INT4 | oid::INT8 => between("-36525", "36525"),
        oid::INTERVAL => {
            let field = |name: &str, most: u32| {
                let part = format!("pg_catalog.date_part('{name}', ${number})");
                format!("(pg_catalog.abs({part}) OPERATOR(pg_catalog.<=) {most}::pg_catalog.float8) IS NOT FALSE")
            };
            let whole = between("-100 years", "100 years")?;
            Some(format!("{whole} AND {} AND {}", field("year", 100), field("day", 36_525)))
        }
        _ => None,
    }
}

/// The number of a parameter that is a text.
fn param_text(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Param(p) if p.kind == 0 && textual(p.type_oid) && oid::array_element(p.type_oid).is_none() => Some(p.id),
        Expr::Relabel { arg, type_oid, .. } if textual(*type_oid) => param_text(arg),
        _ => None,
    }
}

/// The condition under which a text is surely one of a moderate value of the type, in whatever style.
fn readable(number: i64, type_oid: u32) -> Option<String> {
    const DAY: &str = "(?!0000)[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))";
    const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6})?)?";
    const ZONE: &str = "(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)?";
    let pattern = match type_oid {
        oid::DATE | oid::TIMESTAMP | oid::TIMESTAMPTZ => format!("{DAY}([ T]{TIME}{ZONE})?"),
        oid::INT2 | oid::INT4 | oid::INT8 => "-?[0-9]{1,4}".into(),
        oid::NUMERIC => "-?[0-9]{1,15}([.][0-9]{1,15})?".into(),
        oid::BOOL => "t|f|true|false".into(),
        oid::UUID => "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}".into(),
        _ => return None,
    };
    Some(format!("(CAST(${number} AS pg_catalog.text) COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.~) '^({pattern})$') IS NOT FALSE"))
}

/// Days, of a moderate span.
const CENTURY: i64 = 36_525;

/// Times after Christ and before the year 10,000, and spans of up to a century: no few of them lead out of PostgreSQL's times.
fn is_moderate(value: &Value) -> bool {
    const YEARS: std::ops::Range<i64> = -719_162..2_932_897;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_times_are_read_alike_everywhere() {
        for text in ["2024-03-10", "0001-01-01 00:00", "9999-12-31T23:59:59.999999", "2024-02-28 12:30:45.5"] {
            assert!(is_plain_time(text), "{text}");
        }
        for text in [
            "", "2024-3-10", "0000-01-01", "2024-02-29", "2024-04-31", "2024-13-01", "2024-03-10-01", "2024-03-10 24:00", "2024-03-10 1:00",
            "2024-03-10 12:00.5", "2024-03-10 12:00:60", "2024-03-10 12:00:00.", "2024-03-10 12:00:00+01", "10000-01-01", "2024-03-10 12:00:00 BC",
        ] {
            assert!(!is_plain_time(text), "{text}");
        }
    }
}
