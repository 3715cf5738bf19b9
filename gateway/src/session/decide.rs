//! What a statement means to the lake: at Parse, whether the lake may answer it and which store does; at Bind, whether that still holds.
//! ✗ how the lake answers.

use super::bracket::{Bracket, Outcome, Probed, Row};
use super::probe::{self, Facts, Settings, Trees};
use super::{Session, SessionEnd, cold, replay, tails};
use crate::analyze::floats::Source;
use crate::analyze::{self, Analysis, Verdict};
use crate::classify::{Classified, Override};
use crate::query::record::{Path, Record};
use crate::route::{self, Known};
use crate::wire::frame;
use crate::wire::message::{self, ErrorReport};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Instant;

/// Why PostgreSQL answers.
pub(super) const UNSURE: &str = "a parameter for which what is computed of it might raise an error";

/// What is to become of a probed statement.
pub(super) enum Decision {
    /// The lake or a virtual table may answer.
    Lake(Arc<Probed>),
    /// PostgreSQL answers, as long as the floor lies where it does; the reasons are in the record.
    Hot(Arc<Probed>),
    /// PostgreSQL answers; the reasons are in the record.
    Postgres,
    /// Neither may: the client's answer.
    Refuse(ErrorReport),
}

impl Probed {
    /// Which store the decision at Parse named.
    pub fn path(&self) -> Path {
        self.path
    }

    /// The statement that computes parameters and row-independent expressions, if there are any, and last whether none of these might have raised an
    /// error.
    pub(super) fn constants_sql(&self) -> Option<String> {
        let params = self.analysis.params.iter().map(|p| format!("${}", p.number));
        let folds = self.analysis.folds.iter().map(|f| format!("({})", f.sql));
        let sure = (!self.analysis.sure.is_empty()).then(|| format!("({})", self.analysis.sure.join(" AND ")));
        let list: Vec<String> = params.chain(folds).chain(sure).collect();
        (!list.is_empty()).then(|| format!("SELECT {}", list.join(", ")))
    }
}

impl Session {
    /// Analyzes and routes what a bracket around Parse brought.
    pub(super) fn decide(&mut self, bracket: Bracket, statement: &Arc<Classified>, record: &mut Record) -> Decision {
        let clock = Instant::now();
        let catalog = self.shared.catalog.current();
        let postgres = |record: &mut Record, reason: &str| {
            record.entry.reasons = reason.to_string().into();
            Decision::Postgres
        };
        let Some(row_description) = bracket.row_description else {
            return postgres(record, "returns no rows");
        };
        let tree = match bracket.trees {
            Trees::One(tree) => tree,
            Trees::None => return postgres(record, "PostgreSQL printed no tree"),
            Trees::Doubtful => return postgres(record, "the printed tree may not be the statement's own"),
        };
        let Ok(fields) = message::row_description(frame::body(&row_description)) else {
            return postgres(record, "the row description cannot be read");
        };
        let verdict = analyze::analyze(&tree, &catalog.analyze, &analyze_settings(&bracket.settings), &analyze_fields(&fields));
        let setting = Override::parse(&bracket.settings.route);
        let Some(wanted) = statement.hint.or(setting) else {
            // PostgreSQL keeps the setting but cannot know its values.
            let message = format!("invalid value for parameter \"watershed.route\": \"{}\"", bracket.settings.route);
            return Decision::Refuse(ErrorReport::error("22023", message).hint("Available values: auto, postgres, lake, prefer_lake, compare."));
        };
        let objection = bracket.settings.objection();
        let objection = objection.or_else(|| self.quarantine(statement, wanted));
        let objection = objection.or_else(|| match &verdict {
            Verdict::Lake(a) => self.floats_in_the_way(a),
            _ => None,
        });
        if let Err(report) = replay::sample(&bracket.settings.compare_sample) {
            return Decision::Refuse(report);
        }
        if let Err(report) = bracket.settings.logs_plan() {
            return Decision::Refuse(report);
        }
        // What the lake cannot answer may need anything: PostgreSQL's own pruning knows best, and its tripwire holds.
        let floor = match (&verdict, &objection) {
            (Verdict::Lake(a), None) => self.floor(a),
            _ => None,
        };
        let may_need_cold = match &verdict {
            Verdict::Lake(a) => cold::reaches_below(a, a.time_from_us, floor),
            _ => false,
        };
        let known = Known { may_need_cold, objection, verdict: &verdict, wanted };
        record.entry.plan_us += clock.elapsed().as_micros() as i64;
        let route = match route::decide(&known) {
            Ok(route) => route,
            Err(report) => {
                record.entry.reasons = report.detail.clone().unwrap_or_default().into();
                return Decision::Refuse(report);
            }
        };
        record.entry.reasons = route.reasons.join("; ").into();
        if self.shared.config.cold_door.is_some() && catalog.has_floor && matches!(verdict, Verdict::Postgres(_)) {
            record.entry.reasons.to_mut().push_str("; rows that left PostgreSQL come to it through the door");
        }
        record.entry.path = route.path;
        // While there is a floor, what is decided now may be decided otherwise when it has moved on.
        let hot = route.path == Path::Postgres && floor.is_some() && wanted == Override::Auto;
        let analysis = match (verdict, route.path) {
            (Verdict::Lake(a) | Verdict::Virtual(a), Path::Lake | Path::Virtual) => a,
            (Verdict::Lake(a), Path::Postgres) if hot => a,
            _ => {
                record.entry.path = Path::Postgres;
                return Decision::Postgres;
            }
        };
        let probed = Arc::new(Probed {
            settings: bracket.settings,
            tree,
            analysis: Arc::new(analysis),
            turned: None,
            path: if hot { Path::Lake } else { route.path },
            reasons: record.entry.reasons.clone(),
            hot,
            wanted,
            param_types: bracket.param_types,
            row_description,
            fields,
            prepared_at: bracket.prepared_at,
            catalog,
        });
        if hot { Decision::Hot(probed) } else { Decision::Lake(probed) }
    }

    /// If the gateway may have missed an analysis of the statement, finds out whether it means to this day what it is known to mean: its text is
    /// analyzed beside it. (To have PostgreSQL forget its own analyses would have it read literals again, those of other statements too: 'now', or a
    /// time in another zone.) If not, PostgreSQL answers until it analyzes the statement in a bracket. An error is returned.
    pub(super) async fn compare_meaning(&mut self, name: &[u8], probed: &Probed) -> Result<Option<Bytes>, SessionEnd> {
        let Some(prepared) = self.statements.get(name).filter(|p| p.unsure && p.added.is_none()) else { return Ok(None) };
        let mut parse = BytesMut::new();
        message::put_parse(&mut parse, probe::EXPLAINED, prepared.statement.sql.as_bytes(), &probed.param_types);
        message::put_close(&mut self.link.upstream.output, b'S', probe::EXPLAINED);
        match self.bracket(&parse, Some(probe::EXPLAINED), b"", |_| {}).await? {
            Outcome::Failed(e) => return Ok(Some(e)),
            Outcome::Done(bracket) => {
                if let (Trees::One(tree), Some(prepared)) = (bracket.trees, self.statements.get_mut(name))
                    && tree == probed.tree
                {
                    prepared.unsure = false;
                    prepared.uses = None;
                }
            }
        }
        message::put_close(&mut self.link.upstream.output, b'S', probe::EXPLAINED);
        // What was said of it is not of the client's own statement.
        self.notices.clear();
        Ok(None)
    }

    /// The statement as it stands after a bracket around its Bind (`bound`) or Describe. PostgreSQL prints a tree only when it analyzes
    /// anew, so what it means now is remembered for the next time. The error is the reason why PostgreSQL answers this time.
    pub(super) fn follow(
        &mut self,
        probed: &Arc<Probed>,
        bracket: &Bracket,
        name: &[u8],
        bound: bool,
    ) -> Result<Arc<Probed>, String> {
        let client_named = !name.is_empty() && name != probe::SIMPLE;
        if client_named && bracket.prepared_at != probed.prepared_at {
            self.doubt_analysis(name);
            return Err("the name stands for another prepared statement now".into());
        }
        let (mut unsure, mut again) = (false, false);
        if let Some(prepared) = self.statements.get_mut(name) {
            let anew = matches!(bracket.trees, Trees::One(_));
            if anew {
                prepared.analyzed_in = Some(self.turn);
            }
            again = bound && prepared.analyzed_in != Some(self.turn);
            if bound {
                prepared.analyzed_in = None;
            }
            // Somebody else's use: EXECUTE in SQL, out of a function perhaps.
            let used = bound && matches!((prepared.uses, bracket.uses), (Some(before), Some(now)) if now != before + 1);
            unsure = prepared.unsure || used;
            prepared.uses = bracket.uses.filter(|_| bound);
            prepared.unsure = match &bracket.trees {
                Trees::One(_) => false,
                Trees::None => unsure,
                Trees::Doubtful => true,
            };
        }
        let now = match &bracket.trees {
            Trees::Doubtful => return Err("the printed tree may not be the statement's own".into()),
            Trees::None if unsure => return Err("PostgreSQL may have analyzed it anew".into()),
            Trees::One(tree) if *tree != probed.tree => Arc::new(self.analyze_anew(probed, tree, &bracket.settings)),
            Trees::None | Trees::One(_) => probed.clone(),
        };
        if let Some(prepared) = self.statements.get_mut(name) {
            prepared.probed = Some(now.clone());
        }
        if let Some(reason) = &now.turned {
            return Err(reason.clone());
        }
        if again && now.analysis.dimensions.iter().any(|d| d.secured) {
            // It does not look at memberships again; its rows for the lake it would read with the policies of now. Only where the
            // client cannot know whether the analysis was before a change or behind it are they the same.
            return Err("PostgreSQL keeps the policies that it analyzed the statement with".into());
        }
        let (a, b) = (&now.analysis, &probed.analysis);
        let same = (&a.params, &a.folds) == (&b.params, &b.folds)
            && (&a.tables, &a.dimensions) == (&b.tables, &b.dimensions);
        if probed.turned.is_some() || !same {
            // What was asked of PostgreSQL was asked for the meaning of before.
            return Err("the statement's meaning has changed since it was prepared".into());
        }
        Ok(now)
    }

    /// The statement under another tree.
    fn analyze_anew(&self, probed: &Probed, tree: &str, settings: &Settings) -> Probed {
        let catalog = self.shared.catalog.current();
        let fields = analyze_fields(&probed.fields);
        let mut now = Probed { tree: tree.to_owned(), settings: settings.clone(), turned: None, ..probed.clone() };
        let path = match analyze::analyze(tree, &catalog.analyze, &analyze_settings(settings), &fields) {
            Verdict::Lake(a) => {
                now.analysis = Arc::new(a);
                Path::Lake
            }
            Verdict::Virtual(a) => {
                now.analysis = Arc::new(a);
                Path::Virtual
            }
            Verdict::Postgres(reasons) => {
                now.turned = Some(reasons.join("; "));
                now.path
            }
        };
        if now.path != path {
            now.path = path;
            now.reasons = "means something else since it was prepared".into();
        }
        now.catalog = catalog;
        now
    }

    /// Whether what was decided at Parse still holds at Bind. The error is the reason why PostgreSQL answers.
    pub(super) fn admit(
        &self,
        probed: &Probed,
        statement: &Classified,
        bracket: &Bracket,
        facts: Vec<Option<Facts>>,
    ) -> Result<(Arc<Analysis>, Vec<Facts>), String> {
        if let Some(o) = bracket.settings.objection() {
            return Err(o);
        }
        let wanted = statement.hint.or_else(|| Override::parse(&bracket.settings.route)).unwrap_or(Override::Auto);
        if wanted == Override::Postgres {
            return Err("watershed.route asks for PostgreSQL".into());
        }
        if let Some(reason) = self.quarantine(statement, wanted) {
            return Err(reason);
        }
        if wanted != probed.wanted && probed.wanted.wants_lake() && probed.analysis.shape != analyze::Shape::Aggregate {
            return Err("watershed.route no longer asks for the lake".into());
        }
        let same_zone = bracket.settings.timezone == probed.settings.timezone;
        let analysis = match same_zone {
            true => probed.analysis.clone(),
            false => self.analyze_again(probed, &bracket.settings)?,
        };
        let tiered = analysis.tables.len();
        let facts = facts
            .into_iter()
            .enumerate()
            .map(|(number, facts)| match (facts, number.checked_sub(tiered).map(|n| &analysis.dimensions[n])) {
                (None, _) => Err("the table has changed"),
                (Some(f), None) if !f.readable => Err("the user itself may not read the table's columns and _xid"),
                (Some(f), None) if f.row_security => Err("row-level security is active"),
                (Some(f), Some(_)) if !f.readable => Err("the user itself may not read a table that is not tiered"),
                // PostgreSQL applies it to what the user reads: that must be what the statement reads.
                (Some(f), Some(d)) if f.row_security != d.secured => Err("row-level security of another user"),
                (Some(f), _) => Ok(f),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok((analysis, facts))
    }

    /// Under another time zone, the statement may mean something else.
    fn analyze_again(&self, probed: &Probed, settings: &Settings) -> Result<Arc<Analysis>, String> {
        let catalog = self.shared.catalog.current();
        let fields = analyze_fields(&probed.fields);
        match analyze::analyze(&probed.tree, &catalog.analyze, &analyze_settings(settings), &fields) {
            Verdict::Lake(a) | Verdict::Virtual(a)
                if a.params == probed.analysis.params
                    && a.folds == probed.analysis.folds
                    && a.tables == probed.analysis.tables
                    && a.dimensions == probed.analysis.dimensions =>
            {
                Ok(Arc::new(a))
            }
            Verdict::Postgres(reasons) => Err(reasons.join("; ")),
            _ => Err("the statement's meaning has changed since it was prepared".into()),
        }
    }

    /// Why the files at hand do not let the lake answer. Those that answer are looked at again, and the tail with them.
    fn floats_in_the_way(&self, analysis: &Analysis) -> Option<String> {
        let catalog = self.shared.catalog.current();
        analysis.plain.iter().find_map(|source| {
            let Source::Column(relid, attnum) = source else { return None };
            let version = self.shared.engine.at_hand(*relid)?;
            tails::not_plain(catalog.tiered(*relid)?, *attnum, Some(&version))
        })
    }

    /// Why the lake may not answer a statement that it may answer as far as meaning goes.
    fn quarantine(&self, statement: &Classified, wanted: Override) -> Option<String> {
        let known = self.shared.catalog.current().quarantined.contains(&*statement.fingerprint)
            || self.shared.comparisons.suspects(&statement.fingerprint);
        (known && wanted != Override::Compare).then(|| {
            format!("quarantined, since an answer of the lake's differed from PostgreSQL's (fingerprint {})", statement.fingerprint)
        })
    }
}

/// Whether what `constants_sql` computed says that PostgreSQL is to answer.
pub(super) fn unsure(analysis: &Analysis, constants: &Row) -> bool {
    let last = constants.get(analysis.params.len() + analysis.folds.len());
    !analysis.sure.is_empty() && last.and_then(|v| v.as_deref()) != Some(&[1])
}

fn analyze_settings(s: &Settings) -> analyze::Settings {
    analyze::Settings { timezone: s.timezone.clone() }
}

fn analyze_fields(fields: &[message::Field]) -> Vec<analyze::Field> {
    fields
        .iter()
        .map(|f| analyze::Field {
            name: String::from_utf8_lossy(&f.name).into_owned(),
            type_oid: f.type_oid,
            typmod: f.typmod,
        })
        .collect()
}
