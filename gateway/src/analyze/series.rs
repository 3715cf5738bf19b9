//! `generate_series` in FROM, of what does not depend on rows: the calendars that facts are joined to. ✗ its values (`pgexact::series`).

use super::ir::Rel;
use super::{Analyzer, Outcome, names, refuse, registry};
use lake::types::ColType;
use pgtree::oid::Function;
use pgtree::tree::Call;

impl Analyzer<'_> {
    /// None for another function.
    pub(super) fn series(&mut self, call: &Call) -> Outcome<Option<Rel>> {
        let Some(known) = registry::function(call.func) else { return Ok(None) };
        if known.rule.meaning() != Some(registry::Meaning::Of(Function::GenerateSeries)) || call.variadic {
            return Ok(None);
        }
        let Some(ty) = ColType::from_pg(call.type_oid, -1).filter(|ty| ty.type_oid() == known.result) else {
            return refuse(names::function(call.func));
        };
        let mut given = Vec::with_capacity(3);
        for (arg, type_oid) in call.args.iter().zip(known.args) {
            match self.constant(arg)? {
                Some((constant, own)) if own == *type_oid => given.push(constant),
                _ => return refuse("generate_series of something that depends on rows"),
            }
        }
        if ty == ColType::TimestampTz {
            self.session_zone()?;
        }
        let mut given = given.into_iter();
        let (Some(start), Some(stop), step) = (given.next(), given.next(), given.next()) else {
            return refuse(names::function(call.func));
        };
        self.count_relation()?;
        Ok(Some(Rel::Series { start, stop, step, ty }))
    }
}
