//! UNION, INTERSECT, EXCEPT and VALUES. PostgreSQL has brought the columns of both sides to one type; a numeric's scale, which is the value's own
//! there, must be one as well. ✗ what stands behind them: ORDER BY, LIMIT (`relation`).

use super::ir::{Constant, Expr, Kernel, Node, Rel, SetOp};
use super::relation::project;
use super::scalar::typed_constant;
use super::{Analyzer, Outcome, names, refuse};
use lake::types::ColType;
use pgtree::oid::{self, Compare};
use pgtree::tree::{self, Query, SetNode, SetTree};
use pgtree::value::Value;

/// Rows of VALUES.
const MAX_ROWS: usize = 10_000;

impl<'a> Analyzer<'a> {
    /// `stack` ends with the query itself.
    pub(super) fn set_query<'q>(&mut self, query: &'q Query, tree: &'q SetTree, stack: &[&'q Query]) -> Outcome<Rel> {
        let rel = self.set_tree(query, tree, stack)?;
        let types = rel.types();
        let plain = |(index, target): (usize, &tree::Target)| match &target.expr {
            tree::Expr::Var(var) => var.levels_up == 0 && usize::try_from(var.attno) == Ok(index + 1) && !target.junk,
            _ => false,
        };
        if types.len() != query.targets.len() || !query.targets.iter().enumerate().all(plain) {
            return refuse("UNION, INTERSECT or EXCEPT of other columns");
        }
        self.finish(query, rel)
    }

    fn set_tree<'q>(&mut self, query: &'q Query, tree: &'q SetTree, stack: &[&'q Query]) -> Outcome<Rel> {
        self.levels += 1;
        if self.levels > super::MAX_LEVELS {
            return refuse("set operations nested too deeply");
        }
        let outcome = match tree {
            SetTree::Leaf(index) => match index.checked_sub(1).and_then(|i| query.rtable.get(i)) {
                Some(rte) => self.entry(rte, stack),
                None => refuse("a range table reference that leads nowhere"),
            },
            SetTree::Node(node) => self.set_node(query, node, stack),
        };
        self.levels -= 1;
        outcome
    }

    fn set_node<'q>(&mut self, query: &'q Query, node: &'q SetNode, stack: &[&'q Query]) -> Outcome<Rel> {
        let (op, name) = match (node.op, node.all) {
            (tree::SetOp::Union, true) => (SetOp::UnionAll, "UNION"),
            (tree::SetOp::Union, false) => (SetOp::Union, "UNION"),
            (tree::SetOp::Intersect, false) => (SetOp::Intersect, "INTERSECT"),
            (tree::SetOp::Except, false) => (SetOp::Except, "EXCEPT"),
            _ => return refuse("INTERSECT ALL or EXCEPT ALL"),
        };
        self.count_relation()?;
        let left = self.set_tree(query, &node.left, stack)?;
        let right = self.set_tree(query, &node.right, stack)?;
        let left = coerced(left, &node.types, name)?;
        let right = coerced(right, &node.types, name)?;
        let (left, right) = alike(left, right, name)?;
        let types = left.types();
        if types.iter().map(|ty| ty.type_oid()).ne(node.types.iter().copied()) {
            return refuse(format!("{name} of other types than the tree says"));
        }
        if matches!(op, SetOp::Intersect | SetOp::Except) {
            // PostgreSQL computes both sides whole; of a semi-join one may be left out.
            self.whole(&left);
            self.whole(&right);
        }
        if op != SetOp::UnionAll {
            self.aggregated = true;
            if node.groups.len() != types.len() || node.collations.len() != types.len() {
                return refuse(format!("{name} whose columns cannot be told apart"));
            }
            for ((ty, clause), collation) in types.iter().zip(&node.groups).zip(&node.collations) {
                let known = oid::comparison_operator(clause.eqop)
                    .is_some_and(|c| c.compare == Compare::Eq && c.left == c.right);
                if !known {
                    return refuse(format!("{name} with operator {}", clause.eqop));
                }
                self.hashable(*ty, *collation, name)?;
            }
        }
        Ok(Rel::SetOp { op, left: Box::new(left), right: Box::new(right) })
    }

    pub(super) fn values(&mut self, rows: &[Vec<tree::Expr>]) -> Outcome<Rel> {
        if rows.len() > MAX_ROWS {
            return refuse(format!("VALUES of more than {MAX_ROWS} rows"));
        }
        self.count_relation()?;
        let mut types: Vec<Option<ColType>> = Vec::new();
        let mut constants = Vec::with_capacity(rows.len());
        for row in rows {
            types.resize(row.len(), None);
            let mut items = Vec::with_capacity(row.len());
            for (expr, ty) in row.iter().zip(&mut types) {
                let Some((constant, type_oid)) = self.constant(expr)? else {
                    return refuse("VALUES of something that is not a constant");
                };
                let Expr { ty: own, .. } = typed_constant(constant.clone(), type_oid)?;
                if constant != Constant::Literal(Value::Null) || ty.is_none() {
                    *ty = match *ty {
                        None => Some(own),
                        Some(ty) => Some(common(ty, own).ok_or_else(|| {
                            super::Refused("VALUES over different types or numeric scales".into())
                        })?),
                    };
                }
                items.push(constant);
            }
            constants.push(items);
        }
        match types.into_iter().collect::<Option<Vec<_>>>() {
            // Their numbers are made for one precision each.
            Some(types) if !types.is_empty() => Ok(Rel::Values { rows: constants, types }),
            _ => refuse("VALUES without columns"),
        }
    }
}

/// The type that holds both, if their values look the same in it.
fn common(a: ColType, b: ColType) -> Option<ColType> {
    match (a, b) {
        _ if a == b => Some(a),
        (ColType::Numeric { precision: p, scale: s }, ColType::Numeric { precision: q, scale: t }) if s == t => {
            Some(ColType::Numeric { precision: p.max(q), scale: s })
        }
        _ => None,
    }
}

/// Both sides with the types that hold the values of both.
fn alike(mut left: Rel, mut right: Rel, name: &str) -> Outcome<(Rel, Rel)> {
    let (a, b) = (left.types(), right.types());
    if a.len() != b.len() {
        return refuse(format!("{name} of different numbers of columns"));
    }
    let mut types = Vec::with_capacity(a.len());
    for (index, (a, b)) in a.into_iter().zip(b).enumerate() {
        types.push(match common(a, b) {
            Some(ty) => ty,
            None if retype_null(&mut left, index, b) => b,
            None if retype_null(&mut right, index, a) => a,
            None => return refuse(format!("{name} over different numeric scales")),
        });
    }
    Ok((cast(left, &types), cast(right, &types)))
}

/// Gives a NULL literal the type. False if the column is no such.
fn retype_null(rel: &mut Rel, index: usize, ty: ColType) -> bool {
    if !is_null(rel, index) {
        return false;
    }
    if let Rel::Project { outputs, .. } = rel
        && let Some((_, expr)) = outputs.iter_mut().find(|(number, _)| *number == index)
    {
        expr.ty = ty;
    }
    true
}

fn is_null(rel: &Rel, index: usize) -> bool {
    let Rel::Project { outputs, .. } = rel else { return false };
    let null = |e: &Expr| matches!(e.node, Node::Constant(Constant::Literal(Value::Null)));
    outputs.iter().any(|(number, expr)| *number == index && null(expr))
}

/// The relation with columns of these PostgreSQL types: what its planner would do, as far as no value looks different then.
fn coerced(rel: Rel, types: &[u32], name: &str) -> Outcome<Rel> {
    let own = rel.types();
    if own.len() != types.len() {
        return refuse(format!("{name} of other columns than the tree says"));
    }
    let mut wanted = Vec::with_capacity(own.len());
    for (ty, to) in own.iter().zip(types) {
        use ColType::*;
        wanted.push(match (ty, *to) {
            (ty, to) if ty.type_oid() == to => *ty,
            (Int2, oid::INT4) => Int4,
            (Int2 | Int4, oid::INT8) => Int8,
            (Varchar, oid::TEXT) => Text,
            (Text, oid::VARCHAR) => Varchar,
            (Int2, oid::NUMERIC) => Numeric { precision: 5, scale: 0 },
            (Int4, oid::NUMERIC) => Numeric { precision: 10, scale: 0 },
            (Int8, oid::NUMERIC) => Numeric { precision: 19, scale: 0 },
            (ty, to) => {
                return refuse(format!("{name} of {} as {}", names::type_name(ty.type_oid()), names::type_name(to)));
            }
        });
    }
    Ok(cast(rel, &wanted))
}

/// Widens integers and numerics; texts are the same under both names.
fn cast(rel: Rel, types: &[ColType]) -> Rel {
    let own = rel.types();
    if own == types {
        return rel;
    }
    let column = |(index, (from, to)): (usize, (&ColType, &ColType))| {
        let column = Expr::column(index, *from);
        match (from, to) {
            // Stays a literal, which may take another type.
            _ if is_null(&rel, index) => Expr { node: Node::Constant(Constant::Literal(Value::Null)), ty: *to },
            (from, to) if from == to => column,
            (_, ColType::Text | ColType::Varchar) => Expr { ty: *to, ..column },
            (_, ColType::Numeric { .. }) => Expr { node: Node::Call(Kernel::NumericCast, vec![column]), ty: *to },
            _ => Expr { node: Node::Call(Kernel::IntCast, vec![column]), ty: *to },
        }
    };
    let outputs = own.iter().zip(types).enumerate().map(column).collect();
    project(rel, outputs)
}
