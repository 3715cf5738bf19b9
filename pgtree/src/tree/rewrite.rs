//! Expressions of a tree changed in place, wherever [`super::walk`] finds them. Judges nothing. That both find the same is tested with captured
//! trees (`tests/whole.rs`).

use super::*;

/// Shows every expression of a query, each after what it holds, to `change`.
pub fn rewrite(query: &mut Query, change: &mut dyn FnMut(&mut Expr)) {
    for cte in &mut query.ctes {
        if let Some(body) = &mut cte.query {
            rewrite(body, change);
        }
        let marks = cte.cycle.iter_mut().flat_map(|c| c.value.iter_mut().chain(&mut c.default));
        marks.for_each(|mark| expr(mark, change));
    }
    query.rtable.iter_mut().for_each(|rte| entry(rte, change));
    query.from.iter_mut().for_each(|item| from(item, change));
    targets(&mut query.targets, change);
    let single = [&mut query.quals, &mut query.having, &mut query.limit_offset, &mut query.limit_count];
    single.into_iter().flatten().for_each(|e| expr(e, change));
    for window in &mut query.windows {
        window.start.iter_mut().chain(&mut window.end).for_each(|e| expr(e, change));
    }
}

fn targets(targets: &mut [Target], change: &mut dyn FnMut(&mut Expr)) {
    targets.iter_mut().for_each(|t| expr(&mut t.expr, change));
}

fn all<'t>(items: impl IntoIterator<Item = &'t mut Expr>, change: &mut dyn FnMut(&mut Expr)) {
    items.into_iter().for_each(|e| expr(e, change));
}

fn entry(rte: &mut Rte, change: &mut dyn FnMut(&mut Expr)) {
    all(&mut rte.security_quals, change);
    match &mut rte.kind {
        RteKind::Relation { sample, .. } => {
            if let Some(sample) = sample {
                all(sample.args.iter_mut().chain(&mut sample.repeatable), change);
            }
        }
        RteKind::Subquery { query, .. } => rewrite(query, change),
        RteKind::Join { alias_vars, .. } => all(alias_vars, change),
        RteKind::Function { functions, .. } => all(functions.iter_mut().map(|f| &mut f.expr), change),
        RteKind::TableFunction(f) => {
            all(f.document.iter_mut().chain(&mut f.rows).chain(&mut f.namespaces).chain(&mut f.passed).chain(&mut f.paths), change);
            all(f.columns.iter_mut().chain(&mut f.defaults).chain(&mut f.values).flatten(), change);
        }
        RteKind::Values { rows } => all(rows.iter_mut().flatten(), change),
        RteKind::Group { exprs } => all(exprs, change),
        RteKind::Cte { .. } | RteKind::NamedTuplestore { .. } | RteKind::Result | RteKind::Unknown(_) => {}
    }
}

fn from(item: &mut FromItem, change: &mut dyn FnMut(&mut Expr)) {
    if let FromItem::Join { left, right, quals, .. } = item {
        from(left, change);
        from(right, change);
        all(quals, change);
    }
}

/// One expression, after what it holds.
pub fn expr(e: &mut Expr, change: &mut dyn FnMut(&mut Expr)) {
    match e {
        Expr::Var(_)
        | Expr::Const(_)
        | Expr::Param(_)
        | Expr::CaseTest { .. }
        | Expr::SqlValue { .. }
        | Expr::DomainValue { .. }
        | Expr::SetToDefault { .. }
        | Expr::CurrentOf { .. }
        | Expr::NextValue { .. }
        | Expr::Dropped
        | Expr::Unknown(_) => {}
        Expr::Aggref(call) => aggregate(call, change),
        Expr::Window(call) => aggregate(&mut call.call, change),
        Expr::Func(call) | Expr::Op(call) | Expr::Distinct(call) | Expr::NullIf(call) => all(&mut call.args, change),
        Expr::ScalarArray { args, .. }
        | Expr::Bool(_, args)
        | Expr::Coalesce { args, .. }
        | Expr::MinMax { args, .. }
        | Expr::Array { elements: args, .. }
        | Expr::Grouping { args, .. }
        | Expr::Row { args, .. }
        | Expr::List(args) => all(args, change),
        Expr::Relabel { arg, .. }
        | Expr::CoerceViaIo { arg, .. }
        | Expr::Collate { arg, .. }
        | Expr::NullTest { arg, .. }
        | Expr::BooleanTest { arg, .. }
        | Expr::Field { arg, .. }
        | Expr::ConvertRowtype { arg, .. }
        | Expr::CoerceToDomain { arg, .. }
        | Expr::NamedArg { arg, .. } => expr(arg, change),
        Expr::ArrayCoerce { arg, element, .. } => {
            expr(arg, change);
            expr(element, change);
        }
        Expr::Case { arg, whens, default, .. } => {
            all(arg.as_deref_mut(), change);
            whens.iter_mut().for_each(|(when, then)| all([when, then], change));
            all(default.as_deref_mut(), change);
        }
        Expr::RowCompare { left, right, .. } => all(left.iter_mut().chain(right), change),
        Expr::Subscript(s) => {
            all(s.upper.iter_mut().chain(&mut s.lower).flatten(), change);
            all(std::iter::once(&mut s.container).chain(&mut s.assigned), change);
        }
        Expr::SubLink(link) => {
            all(&mut link.test, change);
            rewrite(&mut link.query, change);
        }
        Expr::Xml(xml) => all(xml.named_args.iter_mut().chain(&mut xml.args), change),
        Expr::Json(json) => all(&mut json.args, change),
    }
    change(e);
}

fn aggregate(call: &mut Aggref, change: &mut dyn FnMut(&mut Expr)) {
    all(&mut call.direct_args, change);
    targets(&mut call.args, change);
    all(call.filter.as_deref_mut(), change);
}
