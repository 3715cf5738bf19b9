//! Numerics brought to a scale, and floats row by row. ✗ integer and numeric arithmetic (`scalar`), sums.

use super::ir::{Constant, Expr, Kernel, Node};
use super::registry;
use super::relation::Scope;
use super::{Analyzer, Outcome, Refused, refuse};
use lake::types::ColType;
use pgexact::cut::Cut;
use pgexact::real::Unary;
use pgtree::oid::Function;
use pgtree::tree::Call;
use pgtree::value::Value;

/// Digits of a decimal.
const MAX_PRECISION: i32 = 38;

impl Analyzer<'_> {
    /// `floor`, `ceil`, `trunc` and `round` of a numeric; None where they are not proven for its type.
    pub(super) fn cut<'q>(&mut self, cut: Cut, call: &'q Call, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let digits = match call.args.get(1) {
            None => 0,
            Some(digits) => match self.constant(digits)? {
                Some((Constant::Literal(Value::Int4(k)), _)) if (-30..=30).contains(&k) => k,
                _ => return refuse("a number of digits that is not a small literal"),
            },
        };
        let Some(arg) = call.args.first() else { return refuse(registry::refusal(call.func)) };
        cut_to(cut, self.expr(arg, scope)?, digits).ok_or_else(|| Refused(registry::refusal(call.func)))
    }

    /// Everything here that has a `Function` of its own, but cuts.
    pub(super) fn number<'q>(
        &mut self,
        function: Function,
        call: &'q Call,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        let unproven = || Refused(registry::refusal(call.func));
        let ty = match function {
            Function::Sign => ColType::Numeric { precision: 1, scale: 0 },
            _ => ColType::from_pg(call.type_oid, -1).ok_or_else(unproven)?,
        };
        let made = |kernel, args| Ok(Expr { node: Node::Call(kernel, args), ty });
        if let Function::FloatArith(arith) = function {
            let (a, b) = self.pair(call, scope)?;
            return match (a.ty, b.ty) {
                (ColType::Float8, ColType::Float8) => made(Kernel::FloatArith(arith), vec![a, b]),
                _ => Err(unproven()),
            };
        }
        let arg = self.only(call, scope)?;
        let numeric = matches!(arg.ty, ColType::Numeric { .. } | ColType::NumericText);
        let float = arg.ty == ColType::Float8;
        let unary = |unary| if float { Ok(Kernel::Float(unary)) } else { Err(unproven()) };
        let kernel = match function {
            Function::Sign if numeric => Kernel::Sign,
            Function::NumericToInt if numeric => Kernel::NumericToInt,
            Function::FloatToInt if float => Kernel::FloatToInt,
            Function::ToFloat
                if numeric || matches!(arg.ty, ColType::Int2 | ColType::Int4 | ColType::Int8) =>
            {
                Kernel::ToFloat
            }
            Function::FloatNegate => unary(Unary::Negate)?,
            Function::FloatAbs => unary(Unary::Abs)?,
            Function::FloatFloor => unary(Unary::Floor)?,
            Function::FloatCeil => unary(Unary::Ceil)?,
            Function::FloatTrunc => unary(Unary::Trunc)?,
            Function::FloatRound => unary(Unary::Round)?,
            _ => return Err(unproven()),
        };
        made(kernel, vec![arg])
    }
}

/// `arg` cut to `digits` after the point. A quotient is cut at once: its own scale depends on the values, the result's does not.
pub(super) fn cut_to(cut: Cut, arg: Expr, digits: i32) -> Option<Expr> {
    let whole = |ty: ColType| match ty {
        ColType::Numeric { precision, scale } => {
            Some((i32::from(precision) - i32::from(scale), i32::from(scale)))
        }
        _ => None,
    };
    let shown = digits.max(0);
    let (kernel, args, before) = match (arg.node, arg.ty) {
        (Node::Call(Kernel::NumericDivide, args), _) => {
            let before = match args.as_slice() {
                // The smallest divisor is one in its last digit.
                [a, b] => match (whole(a.ty), whole(b.ty)) {
                    (Some((before, _)), Some((_, scale))) => before + scale + 1,
                    _ => MAX_PRECISION - shown,
                },
                _ => return None,
            };
            (Kernel::CutQuotient(cut, digits), args, before)
        }
        (node, ty @ ColType::Numeric { .. }) => {
            let before = whole(ty)?.0 + 1;
            (Kernel::Cut(cut, digits), vec![Expr { node, ty }], before)
        }
        (node, ty @ ColType::NumericText) => {
            (Kernel::Cut(cut, digits), vec![Expr { node, ty }], MAX_PRECISION - shown)
        }
        _ => return None,
    };
    let precision = (before.max(-digits) + shown).clamp(1, MAX_PRECISION);
    // At most 38, and at most 30 digits after the point.
    let ty = ColType::Numeric { precision: precision as u8, scale: shown as i8 };
    Some(Expr { node: Node::Call(kernel, args), ty })
}
