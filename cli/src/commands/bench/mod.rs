//! `watershed bench`: measures this product beside what a user would pick instead, in one run on one machine, and prints
//! ratios. Works on its own data directory and its own topics; touches nothing that others use.

mod flight;
mod idle;
mod ingest;
pub mod instance;
mod lake;
mod process;
mod programs;
mod python;
mod relay;
mod report;
mod route;
mod sessions;

use anyhow::Result;

use crate::args::BenchCommand;
use crate::exit::Code;

pub async fn run(command: BenchCommand) -> Result<Code> {
    match command {
        BenchCommand::Ingest(args) => ingest::run(args).await,
        BenchCommand::Flight(args) => flight::run(args).await,
        BenchCommand::Lake(args) => lake::run(args).await,
        BenchCommand::Relay(args) => relay::run(args).await,
        BenchCommand::Route(args) => route::run(args).await,
        BenchCommand::Idle(args) => idle::run(args).await,
        BenchCommand::Sessions(args) => sessions::run(args).await,
    }
}
