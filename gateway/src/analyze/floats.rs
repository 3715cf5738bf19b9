//! Floats that are neither NaN nor -0, whatever the rows: of these the engine's equality and order are PostgreSQL's. ✗ facts about columns.

use super::ir::{Expr, Kernel, Node, Rel};
use lake::types::ColType;

/// Whether the expression is such a float: what `date_part` gives is one.
pub(super) fn is_plain(expr: &Expr) -> bool {
    expr.ty == ColType::Float8
        && matches!(&expr.node, Node::Call(Kernel::Extract(_) | Kernel::EpochBetween, _))
}

/// Whether the output of a relation is such a float.
pub(super) fn plain_output(rel: &Rel, number: usize) -> bool {
    let of = |expr: &Expr, input: &Rel| match expr.node {
        Node::Column(below) => plain_output(input, below),
        _ => is_plain(expr),
    };
    match rel {
        Rel::Project { input, outputs, .. } => {
            outputs.iter().any(|(output, expr)| *output == number && of(expr, input))
        }
        Rel::Aggregate { input, groups, .. } => groups.get(number).is_some_and(|expr| of(expr, input)),
        Rel::Filter { input, .. }
        | Rel::Distinct { input }
        | Rel::Sort { input, .. }
        | Rel::Limit { input, .. } => plain_output(input, number),
        _ => false,
    }
}
