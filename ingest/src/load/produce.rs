//! The blocking half of a load: reads a content from where its entry stands, decodes and maps it, and hands over steps
//! through a bounded channel, so that decoding goes on while PostgreSQL takes the step before. Knows no connection.

use std::io::Read;
use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use super::ledger::{Advance, Entry, Progress, Tail};
use crate::batch::{Batch, Rejected};
use crate::decode::csv::{self, Header};
use crate::decode::envelope::Envelope;
use crate::decode::frame::{Frames, Framing, Shape};
use crate::decode::input::Content;
use crate::decode::syslog::Years;
use crate::decode::{Decoder, Format};
use crate::letters::write::{Context, TOO_LARGE};
use crate::map::{Mapper, Origin};
use crate::{Error, Result};

/// A batch and what the entry becomes with it.
#[derive(Debug)]
pub struct Step {
    pub batch: Batch,
    pub from: Progress,
    pub advance: Advance,
    /// Line of the tail, if the last record is one.
    pub tail_line: Option<u64>,
    /// What the refused records need besides their bytes, to be tried again.
    pub context: Option<Arc<Context>>,
}

/// When a batch is full.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub batch_rows: usize,
    pub batch_bytes: usize,
    pub max_record_bytes: usize,
}

/// Collects records into steps and sends the full ones.
pub struct Steps<'a> {
    sender: &'a Sender<Step>,
    limits: Limits,
    batch: Batch,
    weight: usize,
    from: Progress,
    at: Progress,
    end: u64,
    context: Option<Arc<Context>>,
}

impl<'a> Steps<'a> {
    /// Begins at this progress; the content ends at byte `end`.
    pub fn new(sender: &'a Sender<Step>, limits: Limits, from: Progress, end: u64) -> Steps<'a> {
        Steps { sender, limits, batch: Batch::default(), weight: 0, from, at: from, end, context: None }
    }

    /// What the refused records of the steps from now on need besides their bytes.
    pub fn set_context(&mut self, context: Context) {
        self.context = Some(Arc::new(context));
    }

    /// The batch being filled.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Moves on past something that is no record of its own, such as a CSV header; `lines` have been passed in all.
    pub fn pass(&mut self, lines: u64, bytes: u64) {
        self.at.lines = lines;
        self.at.bytes += bytes;
    }

    /// Ends a record of `bytes`, of which `raw` are kept; true if the batch is full.
    pub fn record(&mut self, lines: u64, bytes: u64, raw: usize) -> bool {
        self.at.rows += 1;
        self.pass(lines, bytes);
        self.weight += 2 * raw + 64;
        self.at.rows - self.from.rows >= self.limits.batch_rows as u64
            || self.weight >= self.limits.batch_bytes
    }

    /// Hands the batch over. False if nobody listens any more.
    pub fn send(&mut self, tail: Option<(Tail, u64)>, state: Option<String>, finished: bool) -> bool {
        let batch = std::mem::take(&mut self.batch);
        self.weight = 0;
        if finished {
            // What follows the last record is blank: the entry stands at the end of its content.
            self.at.bytes = self.end;
        }
        let advance = Advance {
            to: self.at,
            loaded: batch.rows() as u64,
            rejected: batch.rejected.len() as u64,
            tail: tail.map(|t| t.0),
            state,
            finished,
        };
        let step = Step {
            batch,
            from: self.from,
            advance,
            tail_line: tail.map(|t| t.1),
            context: self.context.clone(),
        };
        self.from = self.at;
        self.sender.blocking_send(step).is_ok()
    }
}

/// What a file's records are made of.
#[derive(Debug)]
pub struct FileJob {
    pub content: Arc<Content>,
    pub format: Format,
    pub entry: Entry,
    pub first_year: i32,
    pub limits: Limits,
    /// What a JSON record is wrapped in.
    pub envelope: Envelope,
}

/// Reads the header record of a CSV content: the header, its bytes and its lines.
fn read_header(content: &Content, max: usize) -> Result<(Header, u64, u64)> {
    let read = |source| Error::Read { file: content.name.clone(), source };
    let reader = content.reader_at(0).map_err(read)?;
    let mut frames = Frames::new(reader, Framing::Csv { delimiter: b',' }, max, 1);
    let bad = |why: String| Error::Unmappable(format!("{}: {why}", content.name));
    let frame = frames.next_frame().map_err(read)?.ok_or_else(|| bad("no CSV header".to_owned()))?;
    if !matches!(frame.shape, Shape::Whole | Shape::Unterminated) {
        return Err(bad("the CSV header is broken or too long".to_owned()));
    }
    let text = std::str::from_utf8(frames.bytes(&frame))
        .map_err(|_| bad("the CSV header is not UTF-8".to_owned()))?;
    let header = Header::parse(text, csv::guess_delimiter(text)).map_err(bad)?;
    Ok((header, frame.consumed, frames.line() - 1))
}

/// Gives a CSV header's names the spelling of the table's columns where they differ in case only, and refuses a header
/// that the table has no place for.
pub fn fit_header(header: &mut Header, mapper: &Mapper, file: &str) -> Result<()> {
    for name in &mut header.names {
        let lower = name.to_lowercase();
        if !mapper.knows(name) && mapper.knows(&lower) {
            *name = lower;
        }
        if !mapper.knows(name) && mapper.target().overflow.is_none() {
            return Err(Error::Unmappable(format!(
                "{file}: the CSV column {name:?} is no column of {}, which has no overflow column",
                mapper.target().display()
            )));
        }
    }
    Ok(())
}

/// Runs to the end of the entry's content, or until nobody listens.
pub fn file(job: &FileJob, mut mapper: Mapper, sender: &Sender<Step>) -> Result<Mapper> {
    let FileJob { content, format, entry, limits, .. } = job;
    let read = |source| Error::Read { file: content.name.clone(), source };
    let mut steps = Steps::new(sender, *limits, entry.done, entry.content_bytes);
    let (mut decoder, delimiter) = match format {
        Format::Web => (Decoder::Web, b','),
        Format::Ndjson | Format::JsonArray => (Decoder::Json, b','),
        Format::Syslog => {
            let kept = entry.state.as_deref().and_then(|s| serde_json::from_str::<Years>(s).ok());
            let years = kept.unwrap_or(Years::starting(job.first_year));
            steps.set_context(Context { year: Some(years.year), ..Context::default() });
            (Decoder::Syslog(years), b',')
        }
        Format::Csv => {
            let (mut header, bytes, lines) = read_header(content, limits.max_record_bytes)?;
            fit_header(&mut header, &mapper, &content.name)?;
            if entry.done.bytes < bytes {
                steps.pass(lines, bytes - entry.done.bytes);
            }
            let delimiter = header.delimiter;
            steps.set_context(Context::of_header(&header));
            (Decoder::Csv(header), delimiter)
        }
    };
    let start = if *format == Format::JsonArray { 0 } else { steps.at.bytes };
    let source = content.reader_at(start).map_err(read)?;
    let source = source.take(entry.content_bytes.saturating_sub(start));
    let framing = Decoder::framing(*format, delimiter);
    let first_line = if start == 0 { 1 } else { steps.at.lines + 1 };
    let mut frames = Frames::new(source, framing, limits.max_record_bytes, first_line);
    if start < steps.at.bytes {
        // Inside a JSON array: the elements done are framed again, so that the framing knows where it is.
        let mut passed = 0;
        while passed < steps.at.bytes {
            let Some(f) = frames.next_frame().map_err(read)? else { break };
            passed += f.consumed;
        }
    }
    let enveloped = matches!(decoder, Decoder::Json) && job.envelope != Envelope::Plain;
    let state = |d: &Decoder| d.state().and_then(|s| serde_json::to_string(&s).ok());
    let mut reject_first = entry.reject_first;
    let mut tail = None;
    loop {
        let Some(frame) = frames.next_frame().map_err(read)? else { break };
        let raw = frames.bytes(&frame);
        let result = if std::mem::take(&mut reject_first) {
            Err(("frame", "its first part was loaded as a record before the line was complete".to_owned()))
        } else {
            match frame.shape {
                Shape::Whole | Shape::Unterminated if enveloped => {
                    let taken = mapper.map_value(job.envelope, raw, &Origin::NONE, steps.batch(), frame.line);
                    // What was refused is among the rejected already.
                    Ok(taken.rejected == 0)
                }
                Shape::Whole | Shape::Unterminated => match decoder.decode(raw) {
                    Ok(record) => {
                        let mapped = mapper.map(&record, steps.batch(), frame.line, raw);
                        mapped.map(|()| true).map_err(|reason| ("map", reason))
                    }
                    Err(reason) => Err(("decode", reason)),
                },
                Shape::Oversized(length) => Err((
                    TOO_LARGE,
                    format!(
                        "{length} bytes, more than the bound of {}; only its head is kept",
                        limits.max_record_bytes
                    ),
                )),
                Shape::Broken(why) => Err(("frame", why.to_owned())),
            }
        };
        let loaded = matches!(result, Ok(true));
        if let Err((stage, reason)) = result {
            steps.batch().rejected.push(Rejected { line: frame.line, stage, reason, raw: raw.to_vec() });
        }
        if frame.shape == Shape::Unterminated {
            tail = Some((Tail { bytes: frame.consumed, loaded }, frame.line));
        }
        let full = steps.record(frames.line() - 1, frame.consumed, raw.len());
        if full && tail.is_none() && !steps.send(None, state(&decoder), false) {
            return Ok(mapper);
        }
        if full && let Decoder::Syslog(years) = &decoder {
            steps.set_context(Context { year: Some(years.year), ..Context::default() });
        }
    }
    steps.pass(frames.line() - 1, 0);
    steps.send(tail, state(&decoder), true);
    Ok(mapper)
}

/// Runs the generator from where the entry stands. One generated row is one record, one line and one byte of progress.
pub fn generated(
    spec: &crate::generate::Spec,
    entry: &Entry,
    limits: Limits,
    mut mapper: Mapper,
    sender: &Sender<Step>,
) -> Result<Mapper> {
    let mut steps = Steps::new(sender, limits, entry.done, spec.rows);
    let mut rows = crate::generate::Rows::starting_at(spec, entry.done.rows);
    let mut line = entry.done.rows;
    while let Some(record) = rows.next_record() {
        line += 1;
        if let Err(reason) = mapper.map(&record, steps.batch(), line, &[]) {
            steps.batch().rejected.push(Rejected { line, stage: "map", reason, raw: Vec::new() });
        }
        if steps.record(line, 1, 160) && !steps.send(None, None, false) {
            return Ok(mapper);
        }
    }
    steps.send(None, None, true);
    Ok(mapper)
}
