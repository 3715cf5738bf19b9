//! Type, type modifier and collation of an expression, as `nodeFuncs.c` derives them.

use super::*;

impl Query {
    /// The one column that an expression sees of it.
    pub fn first_target(&self) -> Option<&Expr> {
        self.targets.iter().find(|t| !t.junk).map(|t| &t.expr)
    }
}

impl Expr {
    /// The result type (`exprType`); 0 for nodes whose type is not known here.
    pub fn type_oid(&self) -> u32 {
        match self {
            Expr::Var(v) => v.type_oid,
            Expr::Const(c) => c.type_oid,
            Expr::Param(p) => p.type_oid,
            Expr::Aggref(a) => a.type_oid,
            Expr::Func(c) | Expr::Op(c) | Expr::Distinct(c) | Expr::NullIf(c) => c.type_oid,
            Expr::ScalarArray { .. }
            | Expr::Bool(..)
            | Expr::NullTest { .. }
            | Expr::BooleanTest { .. }
            | Expr::RowCompare { .. }
            | Expr::CurrentOf { .. } => crate::oid::BOOL,
            Expr::Relabel { type_oid, .. }
            | Expr::CoerceViaIo { type_oid, .. }
            | Expr::Case { type_oid, .. }
            | Expr::CaseTest { type_oid, .. }
            | Expr::Coalesce { type_oid, .. }
            | Expr::MinMax { type_oid, .. }
            | Expr::Array { type_oid, .. }
            | Expr::SqlValue { type_oid, .. }
            | Expr::Row { type_oid, .. }
            | Expr::Field { type_oid, .. }
            | Expr::ArrayCoerce { type_oid, .. }
            | Expr::ConvertRowtype { type_oid, .. }
            | Expr::CoerceToDomain { type_oid, .. }
            | Expr::DomainValue { type_oid, .. }
            | Expr::SetToDefault { type_oid, .. }
            | Expr::NextValue { type_oid, .. } => *type_oid,
            Expr::Subscript(s) => s.type_oid,
            Expr::Xml(xml) => xml.type_oid(),
            Expr::Json(json) => json.type_oid,
            Expr::NamedArg { arg, .. } => arg.type_oid(),
            Expr::Window(w) => w.call.type_oid,
            Expr::Grouping { .. } => crate::oid::INT4,
            Expr::Collate { arg, .. } => arg.type_oid(),
            Expr::SubLink(link) => match link.kind {
                SubLinkKind::Exists | SubLinkKind::All | SubLinkKind::Any | SubLinkKind::RowCompare => crate::oid::BOOL,
                SubLinkKind::Scalar => link.query.first_target().map_or(0, Expr::type_oid),
                SubLinkKind::MultiExpr | SubLinkKind::Array | SubLinkKind::Cte => 0,
            },
            Expr::List(_) | Expr::Dropped | Expr::Unknown(_) => 0,
        }
    }

    /// The type modifier (`exprTypmod` of `nodeFuncs.c`); -1 where there is none.
    pub fn typmod(&self) -> i32 {
        let common = |type_oid: u32, items: &mut dyn Iterator<Item = &Expr>| -> i32 {
            let mut typmod = None;
            for item in items {
                let own = item.typmod();
                if item.type_oid() != type_oid || own < 0 || typmod.is_some_and(|t| t != own) {
                    return -1;
                }
                typmod = Some(own);
            }
            typmod.unwrap_or(-1)
        };
        match self {
            Expr::Var(v) => v.typmod,
            Expr::Const(c) => c.typmod,
            Expr::Param(p) => p.typmod,
            Expr::Func(call) => call.length_coercion().unwrap_or(-1),
            Expr::NullIf(call) => call.args.first().map_or(-1, Expr::typmod),
            Expr::Relabel { typmod, .. }
            | Expr::CaseTest { typmod, .. }
            | Expr::SqlValue { typmod, .. }
            | Expr::Field { typmod, .. }
            | Expr::ArrayCoerce { typmod, .. }
            | Expr::CoerceToDomain { typmod, .. }
            | Expr::DomainValue { typmod, .. }
            | Expr::SetToDefault { typmod, .. } => *typmod,
            Expr::Subscript(s) => s.typmod,
            Expr::Collate { arg, .. } | Expr::NamedArg { arg, .. } => arg.typmod(),
            Expr::Case { whens, default, type_oid, .. } => match default {
                Some(default) => common(
                    *type_oid,
                    &mut std::iter::once(&**default).chain(whens.iter().map(|(_, result)| result)),
                ),
                None => -1,
            },
            Expr::Coalesce { args, type_oid, .. } | Expr::MinMax { args, type_oid, .. } => {
                common(*type_oid, &mut args.iter())
            }
            Expr::SubLink(link) if link.kind == SubLinkKind::Scalar => {
                link.query.first_target().map_or(-1, Expr::typmod)
            }
            _ => -1,
        }
    }

    /// The collation of the result (`exprCollation`); 0 where there is none.
    pub fn collation(&self) -> u32 {
        match self {
            Expr::Var(v) => v.collation,
            Expr::Const(c) => c.collation,
            Expr::Param(p) => p.collation,
            Expr::Aggref(a) => a.collation,
            Expr::Func(c) | Expr::Op(c) | Expr::NullIf(c) => c.collation,
            Expr::Relabel { collation, .. }
            | Expr::CoerceViaIo { collation, .. }
            | Expr::Collate { collation, .. }
            | Expr::Case { collation, .. }
            | Expr::CaseTest { collation, .. }
            | Expr::Coalesce { collation, .. }
            | Expr::MinMax { collation, .. }
            | Expr::Array { collation, .. }
            | Expr::Field { collation, .. }
            | Expr::ArrayCoerce { collation, .. }
            | Expr::CoerceToDomain { collation, .. }
            | Expr::DomainValue { collation, .. }
            | Expr::SetToDefault { collation, .. } => *collation,
            Expr::Subscript(s) => s.collation,
            Expr::NamedArg { arg, .. } => arg.collation(),
            Expr::Window(w) => w.call.collation,
            Expr::SubLink(link) if link.kind == SubLinkKind::Scalar => {
                link.query.first_target().map_or(0, Expr::collation)
            }
            _ => 0,
        }
    }
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        (self.op, self.func, self.type_oid, self.retset, self.variadic)
            == (other.op, other.func, other.type_oid, other.retset, other.variadic)
            && (self.collation, self.input_collation) == (other.collation, other.input_collation)
            && self.args == other.args
    }
}

impl Call {
    /// The type modifier of a length coercion (`exprIsLengthCoercion`): a cast of two or three arguments whose second is an int4 constant.
    fn length_coercion(&self) -> Option<i32> {
        if !matches!(self.form, 1 | 2) || !(2..=3).contains(&self.args.len()) {
            return None;
        }
        match &self.args[1] {
            Expr::Const(c) if c.type_oid == crate::oid::INT4 => {
                let bytes = c.datum.as_ref()?.get(..4)?;
                Some(i32::from_le_bytes(bytes.try_into().ok()?))
            }
            _ => None,
        }
    }
}
