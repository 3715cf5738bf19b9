//! Functions of dates and times. What may not depend on rows (units, fields, templates, zones, intervals) is a literal, a parameter or a
//! constant that PostgreSQL computes. ✗ comparisons, casts to text.

use super::ir::{Constant, Expr, Kernel, Node, Span, Word};
use super::registry;
use super::relation::Scope;
use super::{Analyzer, Outcome, Refused, names, refuse};
use lake::types::ColType;
use pgexact::datetime::Interval;
use pgexact::extract::{Field, Source};
use pgexact::tochar::Template;
use pgtree::oid::{self, Function};
use pgtree::tree::{self, Call};
use pgtree::value::Value;

/// The zone of that name, if PostgreSQL cannot take it for an abbreviation.
pub fn named_zone(name: &str) -> Option<pgexact::Zone> {
    pgexact::Zone::parse(name).filter(|_| name == "UTC" || name.contains('/'))
}

impl Analyzer<'_> {
    /// A text that does not depend on rows.
    pub(super) fn word(&mut self, expr: &tree::Expr) -> Outcome<Option<Word>> {
        Ok(match self.constant(expr)? {
            Some((Constant::Literal(Value::Text(text)), _)) => Some(Word::Literal(text)),
            Some((Constant::Param(n), oid::TEXT | oid::VARCHAR)) => Some(Word::Param(n)),
            Some((Constant::Fold(n), oid::TEXT | oid::VARCHAR)) => Some(Word::Fold(n)),
            _ => None,
        })
    }

    fn span(&mut self, expr: &tree::Expr) -> Outcome<Option<Span>> {
        Ok(match self.constant(expr)? {
            Some((Constant::Literal(Value::Interval { months, days, micros }), _)) => {
                Some(Span::Literal(Interval { months, days, microseconds: micros }))
            }
            Some((Constant::Param(n), oid::INTERVAL)) => Some(Span::Param(n)),
            Some((Constant::Fold(n), oid::INTERVAL)) => Some(Span::Fold(n)),
            _ => None,
        })
    }

    /// Everything here that has a `Function` of its own.
    pub(super) fn moment<'q>(
        &mut self,
        function: Function,
        call: &'q Call,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        let unproven = || Refused(registry::refusal(call.func));
        let ty = ColType::from_pg(call.type_oid, -1).ok_or_else(unproven)?;
        let made = |kernel, args| Ok(Expr { node: Node::Call(kernel, args), ty });
        match function {
            Function::Extract | Function::DatePart => self.extract(call, scope),
            Function::ExtractInterval => self.epoch_between(call, scope),
            Function::ToChar => {
                let [source, template] = call.args.as_slice() else { return Err(unproven()) };
                let word = self.word(template)?.ok_or_else(unproven)?;
                if let Word::Literal(template) = &word
                    && Template::parse(template).is_none()
                {
                    return refuse(format!("to_char with template \"{template}\""));
                }
                let arg = self.instant(source, scope)?;
                made(Kernel::ToChar(word), vec![arg])
            }
            Function::ToLocal | Function::ToInstant => {
                let (zone, source) = match call.args.as_slice() {
                    [source] => {
                        self.session_zone()?;
                        (None, source)
                    }
                    [zone, source] => {
                        let zone = self.word(zone)?.ok_or_else(unproven)?;
                        if let Word::Literal(name) = &zone
                            && named_zone(name).is_none()
                        {
                            return refuse(format!("AT TIME ZONE \"{name}\""));
                        }
                        (Some(zone), source)
                    }
                    _ => return Err(unproven()),
                };
                let arg = self.expr(source, scope)?;
                match (function, arg.ty) {
                    (Function::ToLocal, ColType::TimestampTz) => made(Kernel::ToLocal(zone), vec![arg]),
                    (Function::ToInstant, ColType::Timestamp) => made(Kernel::ToInstant(zone), vec![arg]),
                    _ => Err(unproven()),
                }
            }
            Function::DateToTimestamp | Function::DateToInstant => {
                let arg = self.only(call, scope)?;
                if arg.ty != ColType::Date {
                    return Err(unproven());
                }
                let midnight = midnight(arg);
                match function {
                    Function::DateToTimestamp => Ok(midnight),
                    _ => {
                        self.session_zone()?;
                        made(Kernel::ToInstant(None), vec![midnight])
                    }
                }
            }
            Function::PlusInterval | Function::MinusInterval => {
                let [a, b] = call.args.as_slice() else { return Err(unproven()) };
                let (source, interval) = if a.type_oid() == oid::INTERVAL { (b, a) } else { (a, b) };
                let span = self.span(interval)?.ok_or_else(unproven)?;
                let mut arg = self.expr(source, scope)?;
                if arg.ty == ColType::Date {
                    arg = midnight(arg);
                }
                if arg.ty == ColType::TimestampTz {
                    self.session_zone()?;
                }
                if arg.ty != ty {
                    return Err(unproven());
                }
                made(Kernel::AddInterval { span, subtract: function == Function::MinusInterval }, vec![arg])
            }
            Function::PlusDays | Function::MinusDays | Function::DaysBetween => {
                let (a, b) = self.pair(call, scope)?;
                let kernel = Kernel::AddDays { subtract: function == Function::MinusDays };
                match (a.ty, b.ty) {
                    (ColType::Date, ColType::Int4) => made(kernel, vec![a, b]),
                    (ColType::Int4, ColType::Date) => made(kernel, vec![b, a]),
                    (ColType::Date, ColType::Date) => made(Kernel::DaysBetween, vec![a, b]),
                    _ => Err(unproven()),
                }
            }
            Function::EpochToInstant => {
                let arg = self.only(call, scope)?;
                match arg.ty {
                    ColType::Float8 => made(Kernel::EpochToInstant, vec![arg]),
                    _ => Err(unproven()),
                }
            }
            _ => Err(unproven()),
        }
    }

    /// A timestamp or timestamptz; the session's zone must be known for the latter.
    fn instant<'q>(&mut self, source: &'q tree::Expr, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let arg = self.expr(source, scope)?;
        match arg.ty {
            ColType::Timestamp => {}
            ColType::TimestampTz => self.session_zone()?,
            other => return refuse(format!("a time of type {}", names::type_name(other.type_oid()))),
        }
        Ok(arg)
    }

    fn extract<'q>(&mut self, call: &'q Call, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let unproven = || Refused(registry::refusal(call.func));
        let [field, source] = call.args.as_slice() else { return Err(unproven()) };
        let Some(Word::Literal(name)) = self.word(field)? else { return Err(unproven()) };
        let mut arg = self.expr(source, scope)?;
        // date_part of a date is a function in SQL that makes a timestamp of it, which not every date has.
        if arg.ty == ColType::Date && call.type_oid == oid::FLOAT8 {
            arg = midnight(arg);
        }
        let kind = match arg.ty {
            ColType::Date => Source::Date,
            ColType::Timestamp => Source::Timestamp,
            ColType::TimestampTz => {
                self.session_zone()?;
                Source::TimestampTz
            }
            _ => return Err(unproven()),
        };
        let Some(field) = Field::parse(&name, kind) else {
            return refuse(format!("extract of \"{name}\" from {}", names::type_name(arg.ty.type_oid())));
        };
        let ty = match call.type_oid {
            oid::FLOAT8 => ColType::Float8,
            _ => {
                let (precision, scale) = field.digits(kind);
                ColType::Numeric { precision, scale }
            }
        };
        Ok(Expr { node: Node::Call(Kernel::Extract(field), vec![arg]), ty })
    }

    /// `extract(epoch FROM a - b)`
    fn epoch_between<'q>(&mut self, call: &'q Call, scope: &mut Scope<'q>) -> Outcome<Expr> {
        /// `timestamp - timestamp` and `timestamptz - timestamptz`
        const DIFFERENCES: [u32; 2] = [2031, 1188];
        let unproven = || Refused(registry::refusal(call.func));
        let [field, tree::Expr::Op(difference)] = call.args.as_slice() else { return Err(unproven()) };
        match self.word(field)? {
            Some(Word::Literal(name)) if name.eq_ignore_ascii_case("epoch") => {}
            _ => return Err(unproven()),
        }
        if !DIFFERENCES.contains(&difference.func) {
            return Err(unproven());
        }
        let (a, b) = self.pair(difference, scope)?;
        if a.ty != b.ty || !matches!(a.ty, ColType::Timestamp | ColType::TimestampTz) {
            return Err(unproven());
        }
        let ty = match call.type_oid {
            oid::FLOAT8 => ColType::Float8,
            _ => ColType::Numeric { precision: 20, scale: 6 },
        };
        Ok(Expr { node: Node::Call(Kernel::EpochBetween, vec![a, b]), ty })
    }

    /// `date_trunc` whose unit is a parameter.
    pub(super) fn date_trunc_by<'q>(
        &mut self,
        call: &'q Call,
        scope: &mut Scope<'q>,
    ) -> Outcome<Option<Expr>> {
        let [unit, source] = call.args.as_slice() else { return Ok(None) };
        let Some(word @ (Word::Param(_) | Word::Fold(_))) = self.word(unit)? else { return Ok(None) };
        let arg = self.instant(source, scope)?;
        Ok(Some(Expr { ty: arg.ty, node: Node::Call(Kernel::DateTruncBy(word), vec![arg]) }))
    }
}

fn midnight(date: Expr) -> Expr {
    Expr { node: Node::Call(Kernel::DateToTimestamp, vec![date]), ty: ColType::Timestamp }
}
