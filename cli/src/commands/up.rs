//! `watershed up`.

use anyhow::Result;

use crate::args::UpArgs;
use crate::config::Config;
use crate::console::{complain, say};
use crate::exit::Code;
use crate::up::{Request, Stops, Up};

pub async fn run(args: &UpArgs) -> Result<Code> {
    let config = Config::resolve(args)?;
    let mut stops = Stops::listen()?;
    let tell = |step: &str| say(step);
    let mut up = tokio::select! {
        started = Up::start(&config, &tell) => started?,
        () = stops.stop_request() => {
            // What was started ends with the process; PostgreSQL, if it runs, is settled by the next start.
            say("stopped before it was ready");
            return Ok(Code::Done);
        }
    };
    announce(&up);
    let failure = loop {
        tokio::select! {
            request = stops.request() => match request {
                Request::Stop => break None,
                Request::Reload => up.services.reload(),
            },
            error = up.failure() => break Some(error),
        }
    };
    if let Some(error) = &failure {
        complain(format_args!("watershed: {error:#}"));
    }
    let stopped = up.stop(&mut stops, &tell).await;
    match failure {
        Some(error) => Err(error),
        None => stopped.map(|()| {
            say("stopped");
            Code::Done
        }),
    }
}

/// Says where everything is; the last line is what tests and scripts wait for.
pub fn announce(up: &Up) {
    say("");
    say(format_args!(
        "  SQL    postgres://{}@{}:{}/{}",
        up.target.user, up.target.host, up.target.port, up.target.database
    ));
    say(format_args!("  psql   {}", up.psql_line()));
    say(format_args!("  HTTP   http://{}/v1/ingest/TABLE", up.http));
    if let Some(flight) = up.flight {
        say(format_args!("  Flight grpc://{flight}"));
    }
    if up.services.has_page() {
        say(format_args!("  page   http://{}/", up.http));
    }
    say(format_args!("  data   {}", up.data.root().display()));
    say("");
    say("ready");
}
