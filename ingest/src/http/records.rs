//! A body of `/v1/ingest/{table}` to a batch: the format told by the content type or the first lines. Knows no connection.

use crate::batch::Rejected;
use crate::decode::csv::{self, Header};
use crate::decode::envelope::Envelope;
use crate::decode::frame::{Frames, Framing, Shape};
use crate::decode::syslog::Years;
use crate::decode::{Decoder, Format, detect, time};
use crate::letters::write::{Context, TOO_LARGE};
use crate::load::now_micros;
use crate::load::produce::fit_header;
use crate::map::{Mapper, Origin};
use crate::target::Target;
use crate::topics::TableRoute;
use crate::{Error, Result};

use super::store::Part;

/// The format that the content type names; everything else is told by the body.
fn format_of(content_type: Option<&str>, body: &[u8], mapper: &Mapper) -> Result<Format> {
    let kind = content_type.and_then(|c| c.split(';').next()).map(|c| c.trim().to_ascii_lowercase());
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    match kind.as_deref() {
        Some("text/csv") => return Ok(Format::Csv),
        Some(
            "application/json"
            | "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines",
        ) => {
            return Ok(if first == Some(&b'[') { Format::JsonArray } else { Format::Ndjson });
        }
        _ => {}
    }
    let head = &body[..body.len().min(detect::SNIFF_BYTES)];
    detect::detect(head, head.len() == body.len(), &|n| mapper.knows(n))
        .ok_or_else(|| Error::UnknownFormat("the body".to_owned()))
}

/// The rows of a body, and what of it is none.
///
/// # Errors
/// The body as a whole is of no known format.
pub fn decode(
    body: &[u8],
    content_type: Option<&str>,
    target: Target,
    route: Option<&TableRoute>,
    max_record: usize,
) -> Result<Part> {
    let mut part = Part::of(target, route)?;
    let envelope = route.map_or(Envelope::Plain, |r| r.envelope);
    let Part { mapper, batch, format: shown, context } = &mut part;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(part);
    }
    let format = format_of(content_type, body, mapper)?;
    *shown = format.name();
    // One JSON object over several lines is one record.
    if format == Format::Ndjson && body.len() <= max_record && memchr::memchr(b'\n', body).is_some() {
        let whole = std::str::from_utf8(body).ok().and_then(|t| crate::decode::json::decode(t).ok());
        if let Some(record) = whole {
            if envelope != Envelope::Plain {
                mapper.map_value(envelope, body, &Origin::NONE, batch, 1);
            } else if let Err(reason) = mapper.map(&record, batch, 1, body) {
                batch.rejected.push(Rejected { line: 1, stage: "map", reason, raw: body.to_vec() });
            }
            return Ok(part);
        }
    }
    let mut frames = Frames::new(body, Decoder::framing(format, b','), max_record, 1);
    let mut decoder = match format {
        Format::Web => Decoder::Web,
        Format::Ndjson | Format::JsonArray => Decoder::Json,
        Format::Syslog => {
            let (year, ..) = time::civil_from_days(now_micros().div_euclid(time::DAY));
            *context = Context { year: Some(year), ..Context::default() };
            Decoder::Syslog(Years::starting(year))
        }
        Format::Csv => {
            let header = csv_header(&mut frames, mapper)?;
            frames.set_framing(Framing::Csv { delimiter: header.delimiter });
            *context = Context::of_header(&header);
            Decoder::Csv(header)
        }
    };
    let enveloped = matches!(decoder, Decoder::Json) && envelope != Envelope::Plain;
    // Reading from memory cannot fail.
    while let Some(frame) = frames.next_frame().map_err(|e| Error::Internal(e.to_string()))? {
        let raw = frames.bytes(&frame);
        let result = match frame.shape {
            Shape::Whole | Shape::Unterminated if enveloped => {
                // What is refused is among the rejected then.
                mapper.map_value(envelope, raw, &Origin::NONE, batch, frame.line);
                Ok(())
            }
            Shape::Whole | Shape::Unterminated => match decoder.decode(raw) {
                Ok(record) => mapper.map(&record, batch, frame.line, raw).map_err(|r| ("map", r)),
                Err(reason) => Err(("decode", reason)),
            },
            Shape::Oversized(n) => {
                Err((TOO_LARGE, format!("{n} bytes, more than the bound of {max_record}")))
            }
            Shape::Broken(why) => Err(("frame", why.to_owned())),
        };
        if let Err((stage, reason)) = result {
            batch.rejected.push(Rejected { line: frame.line, stage, reason, raw: raw.to_vec() });
        }
    }
    Ok(part)
}

fn csv_header(frames: &mut Frames<&[u8]>, mapper: &Mapper) -> Result<Header> {
    let bad = |why: &str| Error::Unmappable(format!("CSV header: {why}"));
    let frame = frames.next_frame().map_err(|e| bad(&e.to_string()))?.ok_or_else(|| bad("missing"))?;
    let text = std::str::from_utf8(frames.bytes(&frame)).map_err(|_| bad("not UTF-8"))?;
    let mut header = Header::parse(text, csv::guess_delimiter(text)).map_err(|r| bad(&r))?;
    fit_header(&mut header, mapper, "the body")?;
    Ok(header)
}
