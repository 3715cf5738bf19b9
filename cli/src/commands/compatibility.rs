//! `watershed compatibility`: the registry of what the lake may answer, as a page.

use std::io::Write as _;

use anyhow::Result;

use crate::exit::Code;

pub fn run() -> Result<Code> {
    std::io::stdout().lock().write_all(gateway::analyze::registry::page().as_bytes())?;
    Ok(Code::Done)
}
