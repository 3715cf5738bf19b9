//! Function calls whose arguments and results are those of the signature, and casts through text. ✗ arithmetic and aggregates (`scalar`).

use super::ir::{Constant, Expr, Kernel, Node};
use super::registry::{self, Cast};
use super::relation::Scope;
use super::scalar::cast_reason;
use super::{Analyzer, Letters, Outcome, Refused, names, refuse};
use lake::types::ColType;
use pgexact::scalar::Scalar;
use pgexact::text;
use pgtree::oid::{self, Function};
use pgtree::tree::{self, Call};
use pgtree::value::Value;

impl Analyzer<'_> {
    /// A call of a kernel that takes what the signature says.
    pub(super) fn run<'q>(
        &mut self,
        scalar: Scalar,
        signature: &[u32],
        call: &'q Call,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        if signature.len() != call.args.len() {
            return refuse(registry::refusal(call.func));
        }
        if matches!(scalar, Scalar::Position | Scalar::Replace | Scalar::SplitPart | Scalar::StartsWith) {
            self.deterministic(call.input_collation, &names::function(call.func))?;
        }
        let mut args = Vec::with_capacity(call.args.len());
        for (arg, wanted) in call.args.iter().zip(signature) {
            let arg = self.expr(arg, scope)?;
            if arg.ty.type_oid() != *wanted {
                return refuse(format!("{} over other types than the tree says", names::function(call.func)));
            }
            args.push(arg);
        }
        let ty = ColType::from_pg(call.type_oid, -1).ok_or_else(|| Refused(registry::refusal(call.func)))?;
        Ok(Expr { node: Node::Call(Kernel::Scalar(scalar), args), ty })
    }

    /// `lower` and `upper`.
    pub(super) fn letters<'q>(
        &mut self,
        upper: bool,
        call: &'q Call,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        let scalar = match (self.letters_of(call.input_collation), upper) {
            (Letters::Ascii, false) => Scalar::LowerC,
            (Letters::Ascii, true) => Scalar::UpperC,
            (Letters::Usual, false) => Scalar::LowerAscii,
            (Letters::Usual, true) => Scalar::UpperAscii,
            (Letters::Unknown, _) => return refuse(registry::refusal(call.func)),
        };
        self.run(scalar, &[oid::TEXT], call, scope)
    }

    /// What letters are under a collation.
    pub(super) fn letters_of(&self, collation: u32) -> Letters {
        match collation {
            oid::COLLATION_C | oid::COLLATION_POSIX => Letters::Ascii,
            oid::COLLATION_DEFAULT => self.catalog.default_letters,
            _ => Letters::Unknown,
        }
    }

    /// `concat` and `concat_ws`, whose arguments are written as their output functions write them.
    pub(super) fn concat<'q>(
        &mut self,
        separated: bool,
        call: &'q Call,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            // A literal whose type was never asked for.
            if let tree::Expr::Const(c) = arg
                && c.type_oid == oid::UNKNOWN
            {
                let text = match &c.datum {
                    None => Value::Null,
                    Some(bytes) => {
                        match std::str::from_utf8(bytes.split(|b| *b == 0).next().unwrap_or_default()) {
                            Ok(text) => Value::Text(text.to_owned()),
                            Err(_) => return refuse(registry::refusal(call.func)),
                        }
                    }
                };
                args.push(Expr { node: Node::Constant(Constant::Literal(text)), ty: ColType::Text });
                continue;
            }
            let arg = self.expr(arg, scope)?;
            // Their output functions write what casts to text write; not so for bool.
            args.push(match arg.ty {
                ColType::Bool => return refuse(registry::refusal(call.func)),
                _ => self.as_text(arg)?,
            });
        }
        let scalar = if separated { Scalar::ConcatWs } else { Scalar::Concat };
        Ok(Expr { node: Node::Call(Kernel::Scalar(scalar), args), ty: ColType::Text })
    }

    /// Elements of jsonb arrays, and values at the end of a path.
    pub(super) fn jsonb_inside<'q>(
        &mut self,
        function: Function,
        call: &'q Call,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        let unproven = || Refused(registry::refusal(call.func));
        let [document, place] = call.args.as_slice() else { return Err(unproven()) };
        let as_text = matches!(function, Function::JsonbElementText | Function::JsonbPathText);
        let steps = match place {
            // ARRAY[...]: computed when the statement is planned, if it is of literals.
            tree::Expr::Array { elements, multidims: false, element_oid: oid::TEXT, .. } => {
                let mut steps = Vec::with_capacity(elements.len());
                for step in elements {
                    match self.constant(step)? {
                        Some((Constant::Literal(value), _)) => steps.push(value),
                        _ => return Err(unproven()),
                    }
                }
                steps
            }
            place => match self.constant(place)? {
                Some((Constant::Literal(Value::Array { elements, .. }), _)) => elements,
                Some((Constant::Literal(index @ Value::Int4(_)), _)) => vec![index],
                _ => return Err(unproven()),
            },
        };
        let kernel = match steps.as_slice() {
            [Value::Int4(index)] => Kernel::JsonbElement { index: *index, as_text },
            steps => {
                let mut path = Vec::with_capacity(steps.len());
                for step in steps {
                    match step {
                        Value::Text(step) if text::is_plain_step(step) => path.push(step.clone()),
                        _ => return Err(unproven()),
                    }
                }
                Kernel::JsonbPath { path, as_text }
            }
        };
        let arg = self.expr(document, scope)?;
        if arg.ty != ColType::Jsonb {
            return Err(unproven());
        }
        let ty = if as_text { ColType::Text } else { ColType::Jsonb };
        Ok(Expr { node: Node::Call(kernel, vec![arg]), ty })
    }

    /// A cast through text.
    pub(super) fn cast<'q>(&mut self, arg: &'q tree::Expr, to: u32, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let from = arg.type_oid();
        let reason = || Refused(cast_reason(from, to));
        let rule = registry::cast(from, to).ok_or_else(reason)?;
        let Some(cast) = rule.meaning() else {
            let (_, why) = rule.verdict();
            return refuse(format!("{}: {why}", reason().0));
        };
        let arg = self.expr(arg, scope)?;
        if arg.ty.type_oid() != from {
            return Err(reason());
        }
        let ty = ColType::from_pg(to, -1).ok_or_else(reason)?;
        let kernel = match cast {
            Cast::ToText => return Ok(Expr { ty, ..self.as_text(arg)? }),
            Cast::ToInt => Kernel::TextToInt,
            Cast::ToNumeric => Kernel::TextToNumeric,
        };
        Ok(Expr { node: Node::Call(kernel, vec![arg]), ty })
    }

    /// The value cast to text.
    pub(super) fn as_text(&self, arg: Expr) -> Outcome<Expr> {
        use ColType::*;
        let kernel = match arg.ty {
            // Kept as their texts.
            Text | Varchar | NumericText | Uuid | Jsonb if arg.as_constant().is_none() || arg.ty == Text => {
                return Ok(Expr { ty: Text, ..arg });
            }
            Int2 | Int4 | Int8 | Numeric { .. } | Date | Timestamp => Kernel::ToText,
            TimestampTz => {
                self.session_zone()?;
                Kernel::ToText
            }
            Bool => Kernel::Scalar(Scalar::BoolText),
            other => return refuse(cast_reason(other.type_oid(), oid::TEXT)),
        };
        Ok(Expr { node: Node::Call(kernel, vec![arg]), ty: Text })
    }
}
