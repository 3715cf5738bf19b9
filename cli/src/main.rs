//! The one binary, `watershed`: parses arguments, calls one library function, turns its result into an exit
//! code. Services live in their crates; this one knows how they are put together (`up`, `services`), the
//! private PostgreSQL cluster (`postgres`, `bootstrap`) and the data directory (`datadir`).

mod args;
mod bootstrap;
mod commands;
mod config;
mod console;
mod datadir;
mod discover;
mod exit;
mod logging;
mod postgres;
mod scram;
mod services;
mod tasks;
mod text_table;
mod units;
mod up;
mod wire_client;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use args::{Cli, Command};
use console::complain;
use exit::Code;

/// After a backlog of millions of rows the process must be small again: glibc keeps what its arenas once had.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("watershed: cannot start threads: {error}"));
            return Code::Environment.into();
        }
    };
    let outcome = runtime.block_on(run(cli));
    // Blocking work that was told to stop may still be in a system call.
    runtime.shutdown_timeout(Duration::from_secs(5));
    match outcome {
        Ok(code) => code.into(),
        Err(error) => {
            exit::report(&error);
            exit::code_of(&error).into()
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<Code> {
    match cli.command {
        Command::Up(args) => commands::up::run(&args).await,
        Command::Ingest(args) => commands::ingest::run(args).await,
        Command::Load(args) => commands::load::run(args).await,
        Command::Archive(args) => commands::archive::run(args).await,
        Command::Compact(args) => commands::compact::run(args).await,
        Command::Verify(args) => commands::verify::run(args).await,
        Command::Rebase(args) => commands::rebase::run(args).await,
        Command::Retain(args) => commands::retain::run(args).await,
        Command::Generate(args) => commands::generate::run(args).await,
        Command::Demo(args) => commands::demo::run(&args).await,
        Command::Queries(args) => commands::queries::run(args).await,
        Command::Compatibility => commands::compatibility::run(),
        Command::DeadLetters(args) => commands::dead_letters::run(args).await,
        Command::Calibrate(args) => commands::calibrate::run(args).await,
        Command::Difftest(args) => commands::difftest::run(args).await,
        Command::Bench(command) => commands::bench::run(command).await,
    }
}
