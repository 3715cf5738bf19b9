//! A walk over the whole of a tree: every query, range table entry, expression and sorting clause that it holds, however deep. Knows where they can
//! be; judges nothing. What it must not miss is tested against the text itself (`tests::the_walk_finds_what_the_text_holds`).

use super::*;

/// One part of a tree.
#[derive(Debug, Clone, Copy)]
pub enum Part<'t> {
    /// The statement itself, of a FROM, a WITH or an expression.
    Query(&'t Query),
    Entry(&'t Rte),
    Expr(&'t Expr),
    /// Of GROUP BY, DISTINCT, ORDER BY, PARTITION BY, of an aggregate or a set operation: it names operators.
    Sort(&'t SortGroup),
    Window(&'t WindowClause),
    Sample(&'t TableSample),
    From(&'t FromItem),
    Sets(&'t SetNode),
}

/// Shows every part of a query to `see`, each before what it holds. A WITH query that is not a SELECT has no parts here.
pub fn walk<'t>(query: &'t Query, see: &mut dyn FnMut(Part<'t>)) {
    see(Part::Query(query));
    for cte in &query.ctes {
        if let Some(body) = &cte.query {
            walk(body, see);
        }
        let marks = cte.cycle.iter().flat_map(|c| c.value.iter().chain(&c.default));
        marks.for_each(|mark| expr(mark, see));
    }
    query.rtable.iter().for_each(|rte| entry(rte, see));
    query.from.iter().for_each(|item| from(item, see));
    targets(&query.targets, see);
    let single = [&query.quals, &query.having, &query.limit_offset, &query.limit_count];
    single.into_iter().flatten().for_each(|e| expr(e, see));
    for window in &query.windows {
        see(Part::Window(window));
        sorts(&window.partition, see);
        sorts(&window.order, see);
        window.start.iter().chain(&window.end).for_each(|e| expr(e, see));
    }
    [&query.group, &query.distinct, &query.sort].into_iter().for_each(|s| sorts(s, see));
    if let Some(tree) = &query.set_operations {
        set_tree(tree, see);
    }
}

fn set_tree<'t>(tree: &'t SetTree, see: &mut dyn FnMut(Part<'t>)) {
    if let SetTree::Node(node) = tree {
        see(Part::Sets(node));
        sorts(&node.groups, see);
        set_tree(&node.left, see);
        set_tree(&node.right, see);
    }
}

fn sorts<'t>(groups: &'t [SortGroup], see: &mut dyn FnMut(Part<'t>)) {
    groups.iter().for_each(|s| see(Part::Sort(s)));
}

fn targets<'t>(targets: &'t [Target], see: &mut dyn FnMut(Part<'t>)) {
    targets.iter().for_each(|t| expr(&t.expr, see));
}

fn all<'t>(items: impl IntoIterator<Item = &'t Expr>, see: &mut dyn FnMut(Part<'t>)) {
    items.into_iter().for_each(|e| expr(e, see));
}

fn entry<'t>(rte: &'t Rte, see: &mut dyn FnMut(Part<'t>)) {
    see(Part::Entry(rte));
    all(&rte.security_quals, see);
    match &rte.kind {
        RteKind::Relation { sample, .. } => {
            if let Some(sample) = sample {
                see(Part::Sample(sample));
                all(sample.args.iter().chain(&sample.repeatable), see);
            }
        }
        RteKind::Subquery { query, .. } => walk(query, see),
        RteKind::Join { alias_vars, .. } => all(alias_vars, see),
        RteKind::Function { functions, .. } => all(functions.iter().map(|f| &f.expr), see),
        RteKind::TableFunction(f) => {
            all(f.document.iter().chain(&f.rows).chain(&f.namespaces).chain(&f.passed).chain(&f.paths), see);
            all(f.columns.iter().chain(&f.defaults).chain(&f.values).flatten(), see);
        }
        RteKind::Values { rows } => all(rows.iter().flatten(), see),
        RteKind::Group { exprs } => all(exprs, see),
        RteKind::Cte { .. } | RteKind::NamedTuplestore { .. } | RteKind::Result | RteKind::Unknown(_) => {}
    }
}

fn from<'t>(item: &'t FromItem, see: &mut dyn FnMut(Part<'t>)) {
    see(Part::From(item));
    if let FromItem::Join { left, right, quals, .. } = item {
        from(left, see);
        from(right, see);
        all(quals, see);
    }
}

/// Shows one expression and what it holds.
pub fn expr<'t>(e: &'t Expr, see: &mut dyn FnMut(Part<'t>)) {
    see(Part::Expr(e));
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
        Expr::Aggref(call) => aggregate(call, see),
        Expr::Window(call) => aggregate(&call.call, see),
        Expr::Func(call) | Expr::Op(call) | Expr::Distinct(call) | Expr::NullIf(call) => all(&call.args, see),
        Expr::ScalarArray { args, .. }
        | Expr::Bool(_, args)
        | Expr::Coalesce { args, .. }
        | Expr::MinMax { args, .. }
        | Expr::Array { elements: args, .. }
        | Expr::Grouping { args, .. }
        | Expr::Row { args, .. }
        | Expr::List(args) => all(args, see),
        Expr::Relabel { arg, .. }
        | Expr::CoerceViaIo { arg, .. }
        | Expr::Collate { arg, .. }
        | Expr::NullTest { arg, .. }
        | Expr::BooleanTest { arg, .. }
        | Expr::Field { arg, .. }
        | Expr::ConvertRowtype { arg, .. }
        | Expr::CoerceToDomain { arg, .. }
        | Expr::NamedArg { arg, .. } => expr(arg, see),
        Expr::ArrayCoerce { arg, element, .. } => {
            expr(arg, see);
            expr(element, see);
        }
        Expr::Case { arg, whens, default, .. } => {
            all(arg.as_deref(), see);
            whens.iter().for_each(|(when, then)| all([when, then], see));
            all(default.as_deref(), see);
        }
        Expr::RowCompare { left, right, .. } => all(left.iter().chain(right), see),
        Expr::Subscript(s) => {
            all(s.upper.iter().chain(&s.lower).flatten(), see);
            all(std::iter::once(&s.container).chain(&s.assigned), see);
        }
        Expr::SubLink(link) => {
            all(&link.test, see);
            walk(&link.query, see);
        }
        Expr::Xml(xml) => all(xml.named_args.iter().chain(&xml.args), see),
        Expr::Json(json) => all(&json.args, see),
    }
}

fn aggregate<'t>(call: &'t Aggref, see: &mut dyn FnMut(Part<'t>)) {
    all(&call.direct_args, see);
    targets(&call.args, see);
    all(call.filter.as_deref(), see);
    sorts(&call.order, see);
    sorts(&call.distinct, see);
}
