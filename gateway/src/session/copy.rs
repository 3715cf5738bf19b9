//! `COPY table FROM` without columns, of a tiered table: the columns that users may fill are named, the rest of the text
//! stays as it came. Whether the name means such a table, and which columns it has, is asked of PostgreSQL on the
//! client's own connection. ✗ the data, the answer.
//!
//! The question cannot fail for lack of rights, and takes no lock: a transaction is afterwards as it was. A statement
//! that is prepared keeps the list that it got at Parse.

use super::bracket::Outcome;
use super::probe;
use super::state::{Added, Running, TxStatus};
use super::{Prepared, Session, SessionEnd};
use crate::classify::CopyHead;
use crate::query::record::Record;
use crate::wire::frame;
use crate::wire::message::{self, Parse};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// As the query log has it.
pub(super) const COPY_REASON: &str = "COPY into a table";

/// The columns of the tiered table named `$2` in schema `$1`, or first in the search path if there is none, as a list in
/// parentheses. No row's value if the name means something else. Looked up by hand: `to_regclass` raises an error where
/// a schema may not be used.
const COLUMNS: &str = "SELECT (SELECT '(' OPERATOR(pg_catalog.||) \
 pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) OPERATOR(pg_catalog.||) ')' \
 FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) t.relid AND a.attnum OPERATOR(pg_catalog.>) 0 \
 AND NOT a.attisdropped AND a.attgenerated OPERATOR(pg_catalog.=) '' \
 AND a.attname OPERATOR(pg_catalog.<>) ALL ('{_xid,_stream,_offset}'::pg_catalog.name[])) \
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
 JOIN watershed_control.tables t ON t.relid OPERATOR(pg_catalog.=) c.oid \
 WHERE c.relname OPERATOR(pg_catalog.=) $2::pg_catalog.name \
 AND CASE WHEN $1::pg_catalog.text OPERATOR(pg_catalog.=) '' THEN pg_catalog.pg_table_is_visible(c.oid) \
     ELSE n.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.name END";

impl Session {
    /// Serves a Query that is such a COPY.
    pub(super) async fn copy_query(
        &mut self,
        f: &Bytes,
        sql: &str,
        head: Arc<CopyHead>,
        mut record: Record,
    ) -> Result<(), SessionEnd> {
        record.entry.reasons = COPY_REASON.into();
        self.forget_unnamed();
        let mut running = Running::relayed(record);
        // In a failed transaction there is nothing to ask.
        if !self.settle().await? || self.state.status() == TxStatus::Failed {
            self.relay_query(f, Some(Box::new(running)));
            return Ok(());
        }
        match self.columns(&head).await? {
            Outcome::Done(None) => {
                self.sync().await?;
                self.relay_query(f, Some(Box::new(running)));
            }
            Outcome::Done(Some(list)) => {
                self.sync().await?;
                let (text, added) = with_list(sql, &head, &list);
                running.added = Some(added);
                let mut query = BytesMut::with_capacity(text.len() + 6);
                message::frame(&mut query, b'Q', |out| {
                    out.extend_from_slice(text.as_bytes());
                    out.extend_from_slice(&[0]);
                });
                self.relay_query(&query, Some(Box::new(running)));
            }
            Outcome::Failed(e) => {
                self.forward_error(&e, &mut running.record);
                self.finish_query().await?;
            }
        }
        Ok(())
    }

    /// Serves a Parse of such a COPY.
    pub(super) async fn copy_parse(
        &mut self,
        f: &Bytes,
        sql: &str,
        head: Arc<CopyHead>,
        mut prepared: Prepared,
    ) -> Result<(), SessionEnd> {
        let message = Parse::read(frame::body(f))?;
        let name = f.slice_ref(message.name);
        prepared.reasons = COPY_REASON.into();
        if !self.settle().await? || self.state.status() == TxStatus::Failed {
            self.pass(f);
            return Ok(());
        }
        match self.columns(&head).await? {
            Outcome::Done(None) => self.forward_parse(f, &prepared),
            Outcome::Done(Some(list)) => {
                let (text, added) = with_list(sql, &head, &list);
                prepared.added = Some(added);
                let mut parse = BytesMut::new();
                message::put_parse(&mut parse, message.name, text.as_bytes(), &message.param_types);
                self.forward_parse(&parse, &prepared);
            }
            Outcome::Failed(e) => {
                let mut record = self.record("extended", &prepared.statement);
                self.forward_error(&e, &mut record);
                return Ok(());
            }
        }
        self.remember(name, prepared);
        Ok(())
    }

    /// The list of the table's columns; none if the name means no tiered table.
    async fn columns(&mut self, head: &CopyHead) -> Result<Outcome<Option<String>>, SessionEnd> {
        let schema = head.schema.as_deref().unwrap_or_default();
        let parameters = [Some(schema.as_bytes()), Some(head.name.as_bytes())];
        let out = &mut self.link.upstream.output;
        probe::put_helper(out, COLUMNS, &[], &parameters, false);
        message::put_flush(out);
        Ok(match self.helper_row().await? {
            Outcome::Done(row) => {
                let list = row.into_iter().next().flatten();
                Outcome::Done(list.and_then(|list| String::from_utf8(list).ok()))
            }
            Outcome::Failed(e) => Outcome::Failed(e),
        })
    }
}

/// The statement with the list, and where that stands.
fn with_list(sql: &str, head: &CopyHead, list: &str) -> (String, Added) {
    let (before, after) = sql.split_at(head.at);
    let inserted = format!(" {list} ");
    let added = Added { at: before.chars().count(), length: inserted.chars().count() };
    (format!("{before}{inserted}{after}"), added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_told_without_the_list() {
        let sql = "COPY \"löge\"FROM STDIN (FORMAT nothing)";
        let head = CopyHead { schema: None, name: "löge".into(), at: "COPY \"löge\"".len() };
        let (text, added) = with_list(sql, &head, "(ts, \"ö\")");
        assert_eq!(text, "COPY \"löge\" (ts, \"ö\") FROM STDIN (FORMAT nothing)");
        let position = |text: &str, what: &str| text.chars().count() - text[text.find(what).unwrap()..].chars().count() + 1;
        for what in ["COPY", "löge", "FROM", "nothing", ")"] {
            let own = if what == ")" { sql.chars().count() } else { position(sql, what) };
            let theirs = if what == ")" { text.chars().count() } else { position(&text, what) };
            assert_eq!(added.own(theirs), own, "{what}");
        }
    }
}
