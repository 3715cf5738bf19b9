//! `watershed generate`: rows as text; needs nothing running.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};

use anyhow::{Context, Result};
use ingest::generate::{Kind, Spec, write_all};

use crate::args::GenerateArgs;
use crate::exit::Code;

pub fn run(args: GenerateArgs) -> Result<Code> {
    let base = match args.table.as_str() {
        "events" => Spec::events(args.rows),
        _ => Spec::logs(args.rows),
    };
    debug_assert!(args.table != "events" || base.kind == Kind::Events);
    let end = args.end.map_or(base.end, |end| end.timestamp_micros());
    let spec = Spec { seed: args.seed, days: args.days, end, ..base };
    let out: Box<dyn Write> = match &args.out {
        Some(path) => Box::new(File::create(path).with_context(|| format!("write {}", path.display()))?),
        None => Box::new(std::io::stdout().lock()),
    };
    match write_all(&spec, BufWriter::with_capacity(1 << 20, out)) {
        // The reader had enough (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Code::Done),
        Err(error) => Err(error).context("write the rows"),
        Ok(_) => Ok(Code::Done),
    }
}
