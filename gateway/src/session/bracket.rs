//! The probe's exchanges: the client's own Parse or Bind between two helpers that print its tree, and the
//! helpers' rows. While one runs, the probe has the connection to itself.
//! ✗ analysis, routing.

use super::probe::{self, Settings, Trees, Window};
use super::{Session, SessionEnd};
use crate::analyze::Analysis;
use crate::catalog::Snapshot;
use crate::classify::Override;
use crate::query::record::Path;
use crate::wire::frame;
use crate::wire::message::{self, Field, Fields};
use bytes::Bytes;
use std::sync::Arc;

/// A row of a helper, by column.
pub(super) type Row = Vec<Option<Vec<u8>>>;

/// What the probe at Parse, and at Binds since, learned of a statement that the lake may answer.
#[derive(Clone)]
pub struct Probed {
    pub settings: Settings,
    /// As printed last: PostgreSQL prints a tree only when it analyzes anew.
    pub tree: String,
    pub analysis: Arc<Analysis>,
    /// Why PostgreSQL answers since the statement means something else (`analysis` is of before).
    pub turned: Option<String>,
    pub path: Path,
    pub reasons: std::borrow::Cow<'static, str>,
    /// At Parse, PostgreSQL held every row that it needs, and was the better store to ask.
    pub hot: bool,
    /// The route that was asked for.
    pub wanted: Override,
    /// Types of `$1`, `$2`, ...
    pub param_types: Vec<u32>,
    /// PostgreSQL's RowDescription of the statement: formats are 0.
    pub row_description: Bytes,
    pub fields: Vec<Field>,
    /// When a named statement was prepared: tells whether the name still stands for it.
    pub prepared_at: Option<String>,
    pub catalog: Arc<Snapshot>,
}

/// One bracket, read to its end.
pub(super) struct Bracket {
    pub settings: Settings,
    pub trees: Trees,
    /// ParameterDescription's types, if the statement was described.
    pub param_types: Vec<u32>,
    /// The RowDescription frame; `None` for a statement without rows.
    pub row_description: Option<Bytes>,
    pub prepared_at: Option<String>,
    /// How often the statement's plan was made or taken, this Bind included; `None` for the unnamed one.
    pub uses: Option<i64>,
}

/// What of the client's stands in a bracket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// A Parse, and a Describe of it behind it.
    ParseDescribe,
    Bind,
    /// A Describe of a statement: PostgreSQL looks whether its analysis still holds, and locks what it reads.
    Describe,
}

/// How a helper or a bracket ended.
pub(super) enum Outcome<T> {
    Done(T),
    /// PostgreSQL raised an error (the whole frame): it is the client's answer.
    Failed(Bytes),
}

impl Session {
    /// Hands the client what user code said while a statement was parsed or bound.
    pub(super) fn release_notices(&mut self) {
        let notices = self.notices.split();
        self.link.client.output.extend_from_slice(&notices);
    }

    /// The session's messages at or below LOG level would mix with the probe's: such a session is not probed.
    /// Asks PostgreSQL where the level may have changed since it was last asked.
    pub(super) async fn hears_too_much(&mut self) -> Result<Outcome<bool>, SessionEnd> {
        if self.level_known {
            return Ok(Outcome::Done(false));
        }
        self.log_level = None;
        Ok(match self.own_log_level().await? {
            Outcome::Done(_) => Outcome::Done(!self.level_known),
            Outcome::Failed(e) => Outcome::Failed(e),
        })
    }

    fn secret(&self) -> String {
        self.shared.config.probe_secret.clone().unwrap_or_default()
    }

    /// The session's own log_min_messages, asked before the first bracket.
    async fn own_log_level(&mut self) -> Result<Outcome<String>, SessionEnd> {
        if let Some(level) = &self.log_level {
            return Ok(Outcome::Done(level.clone()));
        }
        probe::put_helper(&mut self.link.upstream.output, probe::SESSION, &[], &[], false);
        message::put_flush(&mut self.link.upstream.output);
        let row = match self.helper_row().await? {
            Outcome::Done(row) => row,
            Outcome::Failed(e) => return Ok(Outcome::Failed(e)),
        };
        let mut row = row.into_iter().map(|v| v.and_then(|v| String::from_utf8(v).ok()).unwrap_or_default());
        let level = row.next().unwrap_or_default();
        self.level_known = row.next().is_some_and(|own| !probe::below_notice(&own));
        self.log_level = Some(level.clone());
        Ok(Outcome::Done(level))
    }

    /// Sends `client` (a Parse or a Bind) inside a bracket, described if `describe` names a statement, with
    /// `more` helpers behind it, and reads the bracket. The caller reads what `more` asked.
    pub(super) async fn bracket(
        &mut self,
        client: &[u8],
        describe: Option<&[u8]>,
        statement: &[u8],
        more: impl FnOnce(&mut bytes::BytesMut),
    ) -> Result<Outcome<Bracket>, SessionEnd> {
        let level = match self.own_log_level().await? {
            Outcome::Done(level) => level,
            Outcome::Failed(e) => return Ok(Outcome::Failed(e)),
        };
        let secret = self.secret();
        let out = &mut self.link.upstream.output;
        probe::put_on(out, &secret);
        out.extend_from_slice(client);
        if let Some(name) = describe {
            message::put_describe(out, b'S', name);
        }
        probe::put_off(out, &secret, &level, statement);
        more(out);
        message::put_flush(out);
        let inside = if describe.is_some() { Inside::ParseDescribe } else { Inside::Bind };
        let read = self.read_bracket(inside).await?;
        if let Outcome::Failed(_) = read {
            // The settings go back when the transaction is rolled back, not before. (A BEGIN may have come in this
            // very pipeline, so the last known status says nothing; the next ReadyForQuery does.)
            self.swallow_trees = true;
            self.doubt_analysis(statement);
        }
        Ok(read)
    }

    /// A bracket around a Describe of prepared statement `name`, with `more` helpers behind it. See [`Inside::Describe`].
    pub(super) async fn bracket_describe(
        &mut self,
        name: &[u8],
        more: impl FnOnce(&mut bytes::BytesMut),
    ) -> Result<Outcome<Bracket>, SessionEnd> {
        let level = match self.own_log_level().await? {
            Outcome::Done(level) => level,
            Outcome::Failed(e) => return Ok(Outcome::Failed(e)),
        };
        let secret = self.secret();
        let out = &mut self.link.upstream.output;
        probe::put_on(out, &secret);
        message::put_describe(out, b'S', name);
        probe::put_off(out, &secret, &level, name);
        more(out);
        message::put_flush(out);
        let read = self.read_bracket(Inside::Describe).await?;
        if let Outcome::Failed(_) = read {
            self.swallow_trees = true;
            self.doubt_analysis(name);
        }
        Ok(read)
    }

    async fn read_bracket(&mut self, inside: Inside) -> Result<Outcome<Bracket>, SessionEnd> {
        let settings = match self.helper_row().await? {
            Outcome::Done(row) => row,
            Outcome::Failed(e) => return Ok(Outcome::Failed(e)),
        };
        let settings = Settings::read(&settings)
            .ok_or_else(|| SessionEnd::Protocol("the probe's settings cannot be read".into()))?;
        let mut window = Window::default();
        let (mut param_types, mut row_description) = (Vec::new(), None);
        loop {
            let f = self.next_frame().await?;
            match f[0] {
                b'N' => {
                    let fields = Fields::read(frame::body(&f))?;
                    if window.notice(&fields)
                        && probe::visible_at(&settings.client_min_messages, fields.text(b'V'))
                    {
                        self.notices.extend_from_slice(&f);
                    }
                }
                b'1' | b'2' => break,
                // The parameters are described before PostgreSQL looks at the analysis.
                b't' if inside == Inside::Describe => param_types = message::parameter_description(frame::body(&f))?,
                b'T' if inside == Inside::Describe => {
                    row_description = Some(f);
                    break;
                }
                b'n' if inside == Inside::Describe => break,
                b'E' => return Ok(Outcome::Failed(f)),
                other => return Err(unexpected(other)),
            }
        }
        while inside == Inside::ParseDescribe {
            let f = self.next_frame().await?;
            match f[0] {
                b't' => param_types = message::parameter_description(frame::body(&f))?,
                b'T' => {
                    row_description = Some(f);
                    break;
                }
                b'n' => break,
                b'N' => {}
                b'E' => return Ok(Outcome::Failed(f)),
                other => return Err(unexpected(other)),
            }
        }
        let off = match self.helper_row().await? {
            Outcome::Done(row) => row,
            Outcome::Failed(e) => return Ok(Outcome::Failed(e)),
        };
        let (prepared_at, uses) = match off.into_iter().nth(4).flatten().and_then(|v| String::from_utf8(v).ok()) {
            Some(text) => text.rsplit_once(' ').map_or((None, None), |(at, n)| (Some(at.to_owned()), n.parse().ok())),
            None => (None, None),
        };
        // A default of the role or the database names a route: from now on keyed statements are probed too.
        self.route_named |= !matches!(settings.route.as_str(), "" | "auto");
        // Superusers may change their level between brackets: theirs is asked each time.
        if settings.is_superuser {
            self.log_level = None;
        }
        Ok(Outcome::Done(Bracket { settings, trees: window.close(), param_types, row_description, prepared_at, uses }))
    }

    /// Reads one helper's answer: its only row, or the error.
    pub(super) async fn helper_row(&mut self) -> Result<Outcome<Row>, SessionEnd> {
        let mut row = Row::new();
        let mut complete = false;
        loop {
            let f = self.next_frame().await?;
            match f[0] {
                b'3' if complete => return Ok(Outcome::Done(row)),
                // Trees of the helpers themselves, and what user code says inside them.
                b'N' | b'1' | b'2' | b'3' => {}
                b'D' => {
                    row = message::data_row(frame::body(&f))?.into_iter().map(|v| v.map(<[u8]>::to_vec)).collect();
                }
                // Suspended: no more was asked for.
                b'C' | b's' => complete = true,
                b'E' => return Ok(Outcome::Failed(f)),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Sends Sync and reads up to ReadyForQuery, which is returned and not forwarded.
    pub(super) async fn sync(&mut self) -> Result<Bytes, SessionEnd> {
        message::put_sync(&mut self.link.upstream.output);
        loop {
            let f = self.next_frame().await?;
            if f[0] == b'Z' {
                drop(self.state.ready(f.get(5).copied().unwrap_or(b'I')));
                self.after_ready();
                return Ok(f);
            }
        }
    }
}

pub(super) fn unexpected(tag: u8) -> SessionEnd {
    SessionEnd::Protocol(format!("unexpected message {:?} from PostgreSQL inside a probe", tag as char))
}
