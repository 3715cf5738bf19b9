//! From generic nodes to the typed tree. The depth is bounded by the reader's own limit.

use super::nodes::{cycle, rare, row_mark, search, table_function, table_sample};
use super::clauses::{grouping_set, references, set_tree, sub_link, window_clause, window_func};
use super::*;
use crate::read::{self, Item, Limits, Node};

pub(super) type Result<T> = std::result::Result<T, ReadError>;

/// Reads the text of `rewritten parse tree:` (a list of one Query) or of `parse tree:` (a Query).
///
/// # Errors
/// [`TreeError`] when the text is not such a tree, is beyond the limits, or was rewritten to several statements or none.
pub fn parse(text: &str, limits: Limits) -> std::result::Result<Query, TreeError> {
    let item = read::read(text, limits)?;
    let root = match &item {
        Item::List(_, items) if items.len() == 1 => &items[0],
        Item::List(_, items) => return Err(TreeError::NotOne(items.len())),
        other => other,
    };
    match root {
        Item::Node(node) if node.name == "QUERY" => Ok(query(node)?),
        Item::Node(node) => Err(TreeError::NotQuery(node.name.to_owned())),
        _ => Err(TreeError::NotQuery("value".to_owned())),
    }
}

pub(super) fn query(node: &Node<'_>) -> Result<Query> {
    let command = match node.int("commandType")? {
        1 => Command::Select,
        other => Command::Other(other),
    };
    let (from, quals) = match node.get("jointree") {
        Some(Item::Node(tree)) if tree.name == "FROMEXPR" => {
            let from = tree.list("fromlist")?.iter().map(from_item).collect::<Result<_>>()?;
            (from, optional(tree, "quals")?)
        }
        Some(Item::Null) => (Vec::new(), None),
        _ => return Err(ReadError::Field("jointree", node.name.to_owned())),
    };
    Ok(Query {
        command,
        has_aggs: node.bool("hasAggs")?,
        has_window_funcs: node.bool("hasWindowFuncs")?,
        has_target_srfs: node.bool("hasTargetSRFs")?,
        has_sublinks: node.bool("hasSubLinks")?,
        has_distinct_on: node.bool("hasDistinctOn")?,
        has_recursive: node.bool("hasRecursive")?,
        has_modifying_cte: node.bool("hasModifyingCTE")?,
        has_for_update: node.bool("hasForUpdate")?,
        has_row_security: node.bool("hasRowSecurity")?,
        ctes: node.list("cteList")?.iter().map(cte).collect::<Result<_>>()?,
        rtable: range_table(node)?,
        from,
        quals,
        targets: node.list("targetList")?.iter().map(target).collect::<Result<_>>()?,
        group: sort_groups(node, "groupClause")?,
        group_distinct: node.bool("groupDistinct")?,
        grouping_sets: node.list("groupingSets")?.iter().map(grouping_set).collect::<Result<_>>()?,
        having: optional(node, "havingQual")?,
        windows: node.list("windowClause")?.iter().map(window_clause).collect::<Result<_>>()?,
        distinct: sort_groups(node, "distinctClause")?,
        sort: sort_groups(node, "sortClause")?,
        limit_offset: optional(node, "limitOffset")?,
        limit_count: optional(node, "limitCount")?,
        with_ties: node.int("limitOption")? != 0,
        row_marks: node.list("rowMarks")?.iter().map(row_mark).collect::<Result<_>>()?,
        set_operations: match node.get("setOperations") {
            None | Some(Item::Null) => None,
            Some(item) => Some(set_tree(item)?),
        },
    })
}

pub(super) fn named<'n, 'a>(item: &'n Item<'a>, name: &'static str) -> Result<&'n Node<'a>> {
    match item {
        Item::Node(node) if node.name == name => Ok(node),
        Item::Node(node) => Err(ReadError::Field(name, node.name.to_owned())),
        _ => Err(ReadError::Field(name, "a list".to_owned())),
    }
}

fn cte(item: &Item<'_>) -> Result<Cte> {
    let node = named(item, "COMMONTABLEEXPR")?;
    let body = match node.get("ctequery") {
        Some(Item::Node(body)) if body.name == "QUERY" => Some(query(body)?),
        _ => None,
    };
    Ok(Cte {
        name: node.name("ctename")?.unwrap_or_default(),
        recursive: node.bool("cterecursive")?,
        // CTEMaterializeDefault is 0, CTEMaterializeAlways 1, CTEMaterializeNever 2.
        whole: match node.int("ctematerialized")? {
            0 => node.int("cterefcount")? > 1,
            materialized => materialized == 1,
        },
        query: body.filter(|q| q.command == Command::Select).map(Box::new),
        search: search(node)?,
        cycle: cycle(node)?,
    })
}

/// The range table. Since 16 what an entry needs stands in a list of its own, which the entry counts from 1.
fn range_table(query: &Node<'_>) -> Result<Vec<Rte>> {
    let apart = if query.get("rteperminfos").is_some() { query.list("rteperminfos")? } else { &[] };
    let entry = |item| {
        let node = named(item, "RANGETBLENTRY")?;
        let needs = match node.get("requiredPerms") {
            Some(_) => Some(node),
            None => match node.get("perminfoindex").map(|_| index(node, "perminfoindex")).transpose()?.and_then(|at| at.checked_sub(1)) {
                None => None,
                Some(at) => match apart.get(at) {
                    Some(item) => Some(named(item, "RTEPERMISSIONINFO").or_else(|_| named(item, "PERMISSIONINFO"))?),
                    None => return Err(ReadError::Field("perminfoindex", node.name.to_owned())),
                },
            },
        };
        rte(node, needs)
    };
    query.list("rtable")?.iter().map(entry).collect()
}

fn rte(node: &Node<'_>, needs: Option<&Node<'_>>) -> Result<Rte> {
    let kind = match node.int("rtekind")? {
        0 => RteKind::Relation {
            relid: node.oid("relid")?,
            relkind: node.char("relkind")?,
            sample: table_sample(node)?,
        },
        1 => match node.get("subquery") {
            Some(Item::Node(body)) if body.name == "QUERY" => RteKind::Subquery {
                query: Box::new(query(body)?),
                security_barrier: node.bool("security_barrier")?,
                view: if node.get("relid").is_some() { node.oid("relid")? } else { 0 },
            },
            _ => return Err(ReadError::Field("subquery", node.name.to_owned())),
        },
        2 => RteKind::Join { kind: node.int("jointype")?, alias_vars: exprs(node, "joinaliasvars")? },
        3 => RteKind::Function {
            functions: node.list("functions")?.iter().map(range_function).collect::<Result<_>>()?,
            ordinality: node.bool("funcordinality")?,
        },
        4 => match node.get("tablefunc") {
            Some(item) => RteKind::TableFunction(Box::new(table_function(named(item, "TABLEFUNC")?)?)),
            None => return Err(ReadError::Field("tablefunc", node.name.to_owned())),
        },
        5 => {
            let mut rows = Vec::new();
            for row in node.list("values_lists")? {
                match row {
                    Item::List(read::ListKind::Values, items) => {
                        rows.push(items.iter().map(expr).collect::<Result<_>>()?)
                    }
                    // A row without columns.
                    Item::Null => rows.push(Vec::new()),
                    _ => return Err(ReadError::Field("values_lists", node.name.to_owned())),
                }
            }
            RteKind::Values { rows }
        }
        6 => RteKind::Cte {
            name: node.name("ctename")?.unwrap_or_default(),
            levels_up: node.int("ctelevelsup")?,
            self_reference: node.bool("self_reference")?,
        },
        7 => RteKind::NamedTuplestore { name: node.name("enrname")?.unwrap_or_default(), relid: node.oid("relid")? },
        8 => RteKind::Result,
        9 => RteKind::Group { exprs: exprs(node, "groupexprs")? },
        other => RteKind::Unknown(other),
    };
    let (name, column_count) = match node.get("eref") {
        Some(Item::Node(alias)) => {
            (alias.name("aliasname")?.unwrap_or_default(), alias.list("colnames").map_or(0, <[_]>::len))
        }
        _ => (String::new(), 0),
    };
    let (required_perms, check_as_user, selected) = match needs {
        Some(needs) => (needs.int("requiredPerms")? as u64, needs.oid("checkAsUser")?, needs.numbers("selectedCols")?),
        None => (0, 0, Vec::new()),
    };
    Ok(Rte {
        kind,
        name,
        lateral: node.bool("lateral")?,
        // Printed of tables only since 16.
        inh: node.get("inh").is_some() && node.bool("inh")?,
        required_perms,
        check_as_user,
        // Bitmap sets of columns are offset by FirstLowInvalidHeapAttributeNumber (-7).
        selected_cols: selected.into_iter().map(|bit| i32::try_from(bit - 7).unwrap_or(i32::MIN)).collect(),
        security_quals: exprs(node, "securityQuals")?,
        column_count,
    })
}

fn range_function(item: &Item<'_>) -> Result<RangeFunction> {
    let node = named(item, "RANGETBLFUNCTION")?;
    let (types, collations) = (references(node, "funccoltypes")?, references(node, "funccolcollations")?);
    let typmods = node.numbers("funccoltypmods")?.into_iter().map(|t| i32::try_from(t).unwrap_or(-1));
    Ok(RangeFunction {
        expr: required(node, "funcexpr")?,
        column_count: node.int("funccolcount")?,
        columns: types.into_iter().zip(typmods).zip(collations).map(|((t, m), c)| (t, m, c)).collect(),
    })
}

fn from_item(item: &Item<'_>) -> Result<FromItem> {
    let Item::Node(node) = item else { return Err(ReadError::Field("fromlist", "a list".to_owned())) };
    Ok(match node.name {
        "RANGETBLREF" => FromItem::Ref(index(node, "rtindex")?),
        "JOINEXPR" => FromItem::Join {
            kind: match node.int("jointype")? {
                0 => JoinKind::Inner,
                1 => JoinKind::Left,
                2 => JoinKind::Full,
                3 => JoinKind::Right,
                other => JoinKind::Other(other),
            },
            left: Box::new(from_item(node.get("larg").unwrap_or(&Item::Null))?),
            right: Box::new(from_item(node.get("rarg").unwrap_or(&Item::Null))?),
            quals: optional(node, "quals")?,
            rtindex: index(node, "rtindex")?,
        },
        other => FromItem::Unknown(other.to_owned()),
    })
}

pub(super) fn index(node: &Node<'_>, field: &'static str) -> Result<usize> {
    usize::try_from(node.int(field)?).map_err(|_| ReadError::Field(field, node.name.to_owned()))
}

fn target(item: &Item<'_>) -> Result<Target> {
    let node = named(item, "TARGETENTRY")?;
    Ok(Target {
        expr: required(node, "expr")?,
        resno: node.int2("resno")?,
        name: node.name("resname")?,
        sort_group_ref: node.oid("ressortgroupref")?,
        junk: node.bool("resjunk")?,
    })
}

pub(super) fn sort_groups(node: &Node<'_>, field: &'static str) -> Result<Vec<SortGroup>> {
    node.list(field)?
        .iter()
        .map(|item| {
            let node = named(item, "SORTGROUPCLAUSE")?;
            Ok(SortGroup {
                target: node.oid("tleSortGroupRef")?,
                eqop: node.oid("eqop")?,
                sortop: node.oid("sortop")?,
                nulls_first: node.bool("nulls_first")?,
            })
        })
        .collect()
}

pub(super) fn optional(node: &Node<'_>, field: &'static str) -> Result<Option<Expr>> {
    match node.get(field) {
        Some(Item::Null) => Ok(None),
        Some(item) => expr(item).map(Some),
        None => Err(ReadError::Field(field, node.name.to_owned())),
    }
}

pub(super) fn required(node: &Node<'_>, field: &'static str) -> Result<Expr> {
    optional(node, field)?.ok_or_else(|| ReadError::Field(field, node.name.to_owned()))
}

pub(super) fn boxed(node: &Node<'_>, field: &'static str) -> Result<Box<Expr>> {
    required(node, field).map(Box::new)
}

pub(super) fn exprs(node: &Node<'_>, field: &'static str) -> Result<Vec<Expr>> {
    node.list(field)?.iter().map(expr).collect()
}

pub(super) fn expr(item: &Item<'_>) -> Result<Expr> {
    let node = match item {
        Item::Node(node) => node,
        Item::List(read::ListKind::Values, items) => return Ok(Expr::List(items.iter().map(expr).collect::<Result<_>>()?)),
        Item::Null => return Ok(Expr::Dropped),
        _ => return Ok(Expr::Unknown("LIST".to_owned())),
    };
    Ok(match node.name {
        "VAR" => Expr::Var(Var {
            varno: index(node, "varno")?,
            attno: node.int2("varattno")?,
            type_oid: node.oid("vartype")?,
            typmod: node.int4("vartypmod")?,
            collation: node.oid("varcollid")?,
            levels_up: node.oid("varlevelsup")?,
        }),
        "CONST" => {
            let datum = match (node.bool("constisnull")?, node.get("constvalue")) {
                (true, Some(Item::Null)) => None,
                (false, Some(Item::Datum(_, bytes))) => Some(bytes.clone()),
                _ => return Err(ReadError::Field("constvalue", node.name.to_owned())),
            };
            Expr::Const(Const {
                type_oid: node.oid("consttype")?,
                typmod: node.int4("consttypmod")?,
                collation: node.oid("constcollid")?,
                len: node.int4("constlen")?,
                by_value: node.bool("constbyval")?,
                datum,
            })
        }
        "PARAM" => Expr::Param(Param {
            kind: node.int("paramkind")?,
            id: node.int("paramid")?,
            type_oid: node.oid("paramtype")?,
            typmod: node.int4("paramtypmod")?,
            collation: node.oid("paramcollid")?,
        }),
        "AGGREF" => Expr::Aggref(Box::new(Aggref {
            fnoid: node.oid("aggfnoid")?,
            type_oid: node.oid("aggtype")?,
            collation: node.oid("aggcollid")?,
            input_collation: node.oid("inputcollid")?,
            direct_args: exprs(node, "aggdirectargs")?,
            args: node.list("args")?.iter().map(target).collect::<Result<_>>()?,
            order: sort_groups(node, "aggorder")?,
            distinct: sort_groups(node, "aggdistinct")?,
            filter: optional(node, "aggfilter")?.map(Box::new),
            star: node.bool("aggstar")?,
            variadic: node.bool("aggvariadic")?,
            kind: node.char("aggkind")?,
            levels_up: node.oid("agglevelsup")?,
            split: node.int("aggsplit")?,
        })),
        "FUNCEXPR" => Expr::Func(Call {
            op: 0,
            func: node.oid("funcid")?,
            type_oid: node.oid("funcresulttype")?,
            retset: node.bool("funcretset")?,
            variadic: node.bool("funcvariadic")?,
            collation: node.oid("funccollid")?,
            input_collation: node.oid("inputcollid")?,
            form: node.int("funcformat")?,
            args: exprs(node, "args")?,
        }),
        "OPEXPR" => Expr::Op(operator(node)?),
        "DISTINCTEXPR" => Expr::Distinct(operator(node)?),
        "NULLIFEXPR" => Expr::NullIf(operator(node)?),
        "SCALARARRAYOPEXPR" => Expr::ScalarArray {
            op: node.oid("opno")?,
            func: node.oid("opfuncid")?,
            use_or: node.bool("useOr")?,
            input_collation: node.oid("inputcollid")?,
            args: exprs(node, "args")?,
        },
        "BOOLEXPR" => {
            let op = match node.name("boolop")?.as_deref() {
                Some("and") => BoolOp::And,
                Some("or") => BoolOp::Or,
                Some("not") => BoolOp::Not,
                _ => return Err(ReadError::Field("boolop", node.name.to_owned())),
            };
            Expr::Bool(op, exprs(node, "args")?)
        }
        "RELABELTYPE" => Expr::Relabel {
            arg: boxed(node, "arg")?,
            type_oid: node.oid("resulttype")?,
            typmod: node.int4("resulttypmod")?,
            collation: node.oid("resultcollid")?,
        },
        "COERCEVIAIO" => Expr::CoerceViaIo {
            arg: boxed(node, "arg")?,
            type_oid: node.oid("resulttype")?,
            collation: node.oid("resultcollid")?,
        },
        // Versions differ in whether they print the "EXPR" of some of these names.
        "COLLATE" | "COLLATEEXPR" => {
            Expr::Collate { arg: boxed(node, "arg")?, collation: node.oid("collOid")? }
        }
        "NULLTEST" => Expr::NullTest {
            arg: boxed(node, "arg")?,
            is_null: match node.int("nulltesttype")? {
                0 => true,
                1 => false,
                _ => return Err(ReadError::Field("nulltesttype", node.name.to_owned())),
            },
            row: node.bool("argisrow")?,
        },
        "BOOLEANTEST" => Expr::BooleanTest {
            arg: boxed(node, "arg")?,
            test: match node.int("booltesttype")? {
                0 => BoolTest::IsTrue,
                1 => BoolTest::IsNotTrue,
                2 => BoolTest::IsFalse,
                3 => BoolTest::IsNotFalse,
                4 => BoolTest::IsUnknown,
                5 => BoolTest::IsNotUnknown,
                _ => return Err(ReadError::Field("booltesttype", node.name.to_owned())),
            },
        },
        "CASE" | "CASEEXPR" => Expr::Case {
            arg: optional(node, "arg")?.map(Box::new),
            whens: node
                .list("args")?
                .iter()
                .map(|item| match item {
                    Item::Node(when) if when.name == "WHEN" || when.name == "CASEWHEN" => {
                        Ok((required(when, "expr")?, required(when, "result")?))
                    }
                    _ => Err(ReadError::Field("args", node.name.to_owned())),
                })
                .collect::<Result<_>>()?,
            default: optional(node, "defresult")?.map(Box::new),
            type_oid: node.oid("casetype")?,
            collation: node.oid("casecollid")?,
        },
        "CASETESTEXPR" => Expr::CaseTest {
            type_oid: node.oid("typeId")?,
            typmod: node.int4("typeMod")?,
            collation: node.oid("collation")?,
        },
        "COALESCE" | "COALESCEEXPR" => Expr::Coalesce {
            args: exprs(node, "args")?,
            type_oid: node.oid("coalescetype")?,
            collation: node.oid("coalescecollid")?,
        },
        "MINMAX" | "MINMAXEXPR" => Expr::MinMax {
            greatest: match node.int("op")? {
                0 => true,
                1 => false,
                _ => return Err(ReadError::Field("op", node.name.to_owned())),
            },
            args: exprs(node, "args")?,
            type_oid: node.oid("minmaxtype")?,
            collation: node.oid("minmaxcollid")?,
            input_collation: node.oid("inputcollid")?,
        },
        "ARRAY" | "ARRAYEXPR" => Expr::Array {
            elements: exprs(node, "elements")?,
            type_oid: node.oid("array_typeid")?,
            collation: node.oid("array_collid")?,
            element_oid: node.oid("element_typeid")?,
            multidims: node.bool("multidims")?,
        },
        "SQLVALUEFUNCTION" => match sql_value_op(node.int("op")?) {
            Some(op) => Expr::SqlValue { op, type_oid: node.oid("type")?, typmod: node.int4("typmod")? },
            None => Expr::Unknown(node.name.to_owned()),
        },
        "WINDOWFUNC" => Expr::Window(Box::new(window_func(node)?)),
        "GROUPINGFUNC" => Expr::Grouping { refs: references(node, "refs")?, args: exprs(node, "args")?, levels_up: node.oid("agglevelsup")? },
        "SUBLINK" => Expr::SubLink(Box::new(sub_link(node)?)),
        other => match rare(node)? {
            Some(expr) => expr,
            None => Expr::Unknown(other.to_owned()),
        },
    })
}

fn operator(node: &Node<'_>) -> Result<Call> {
    Ok(Call {
        op: node.oid("opno")?,
        func: node.oid("opfuncid")?,
        type_oid: node.oid("opresulttype")?,
        retset: node.bool("opretset")?,
        variadic: false,
        collation: node.oid("opcollid")?,
        input_collation: node.oid("inputcollid")?,
        form: 0,
        args: exprs(node, "args")?,
    })
}

fn sql_value_op(number: i64) -> Option<SqlValueOp> {
    use SqlValueOp::*;
    const ORDER: [SqlValueOp; 15] = [
        CurrentDate,
        CurrentTime,
        CurrentTimeN,
        CurrentTimestamp,
        CurrentTimestampN,
        LocalTime,
        LocalTimeN,
        LocalTimestamp,
        LocalTimestampN,
        CurrentRole,
        CurrentUser,
        User,
        SessionUser,
        CurrentCatalog,
        CurrentSchema,
    ];
    ORDER.get(usize::try_from(number).ok()?).copied()
}
