//! Has PostgreSQL rank the texts that a whole statement is sorted by, on the client's own connection, and starts what is left to do with the lake's
//! rows. ✗ collecting and sorting (`plan::ranks`), which statements these are (`analyze::arranged`).

use super::bracket::Outcome;
use super::give_up::{GiveUp, give_up_engine};
use super::{Session, probe};
use crate::analyze::arranged::{self, Arranged};
use crate::engine::QueryStream;
use crate::plan::ranks::{self, Rows};
use crate::plan::{self, PlanInputs};
use crate::wire::message;
use pgtree::oid::COLLATION_DEFAULT;
use std::collections::HashMap;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

impl Session {
    /// The answer, in its order, of the rows in `stream`.
    pub(super) async fn arrange(
        &mut self,
        arranged: &Arranged,
        mut stream: QueryStream,
        mut inputs: PlanInputs,
        cancel: &CancellationToken,
        deadline: Option<Instant>,
    ) -> Result<QueryStream, GiveUp> {
        let mut rows = Rows::new(stream.schema());
        while let Some(batch) = self.attend(deadline, stream.next()).await? {
            rows.push(batch.map_err(|e| give_up_engine(false, e))?)?;
        }
        let read = stream.stats();
        drop(stream);
        let mut all = Vec::with_capacity(arranged.ranked.len());
        for one in &arranged.ranked {
            let texts = rows.texts(one.output)?;
            all.push(if texts.is_empty() { Vec::new() } else { self.ranks(one.collation, &texts).await? });
        }
        inputs.providers = HashMap::from([(arranged::ROWS, rows.ranked(arranged, &all)?)]);
        let plan = plan::arranged(arranged, &inputs)?;
        let engine = self.shared.engine.clone();
        let started = self.attend(deadline, engine.execute(plan, cancel.clone())).await?;
        Ok(started.map_err(|e| give_up_engine(false, e))?.following(read))
    }

    /// The ranks of texts under a collation.
    async fn ranks(&mut self, collation: u32, texts: &[&str]) -> Result<Vec<i64>, GiveUp> {
        let name = match collation {
            // It cannot be renamed or hidden.
            COLLATION_DEFAULT => "pg_catalog.\"default\"".to_owned(),
            _ => {
                probe::put_collation(&mut self.link.upstream.output, collation);
                message::put_flush(&mut self.link.upstream.output);
                let row = self.asked().await?;
                let known = row.into_iter().next().flatten().and_then(|name| String::from_utf8(name).ok());
                known.ok_or_else(|| GiveUp::FallBack(format!("the user cannot name the collation with oid {collation}")))?
            }
        };
        let array = ranks::text_array(texts);
        probe::put_ranks(&mut self.link.upstream.output, &name, &array);
        message::put_flush(&mut self.link.upstream.output);
        let row = self.asked().await?;
        let of_it = matches!(row.get(1), Some(Some(oid)) if *oid == collation.to_string().into_bytes());
        let ranks = row.into_iter().next().flatten().and_then(|numbers| ranks::numbers(&numbers));
        match ranks.filter(|ranks| of_it && ranks.len() == texts.len()) {
            Some(ranks) => Ok(ranks),
            None => Err(GiveUp::FallBack(format!("PostgreSQL did not rank texts by the collation with oid {collation}"))),
        }
    }

    async fn asked(&mut self) -> Result<super::bracket::Row, GiveUp> {
        match self.helper_row().await? {
            Outcome::Done(row) => Ok(row),
            Outcome::Failed(e) => Err(GiveUp::Upstream(e)),
        }
    }
}
