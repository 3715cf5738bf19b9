//! `watershed bench`: measures this product beside what a user would pick instead, in one run on one machine, and prints
//! ratios. Works on its own data directory and its own topics; touches nothing that others use.

mod idle;
mod ingest;
mod instance;
mod lake;
mod process;
mod report;

use anyhow::Result;

use crate::args::BenchCommand;
use crate::exit::Code;

pub async fn run(command: BenchCommand) -> Result<Code> {
    match command {
        BenchCommand::Ingest(args) => ingest::run(args).await,
        BenchCommand::Lake(args) => lake::run(args).await,
        BenchCommand::Idle(args) => idle::run(args).await,
    }
}
