//! The protocol: which call does what to which session. Every call runs to its end in a task of its own, whether or not its client
//! waits, so that no session is left inside an exchange. ✗ types, SQL of the catalog, how a statement is executed.

use super::client::{Client, Credentials, GONE, Ground, given_up, gone, is_gone};
use super::failure::Failure;
use super::{effects, incoming, ingest};
use super::messages::{self, CloseResult, GetOptionsResult, OptionError, OptionValue, SetOptions, SetOptionsResult};
use super::metadata::{self, Named};
use super::run::{Reader, Run};
use super::sessions::{FlightSession, Sessions, Statement, Transaction, check_within, ended_by_sql, random_id};
use super::placeholders;
use crate::cold_door::quoted as text;
use crate::limits::Admission;
use crate::session::opening::Peer;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::*;
use arrow_flight::{
    Action, ActionType, BasicAuth, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, Empty, FlightData,
    FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, PollInfo, PutResult, SchemaAsIpc,
    SchemaResult, Ticket,
};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::IpcWriteOptions;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of a message to a client, about.
const MESSAGE: usize = 2 << 20;
/// The most parts that an answer can be read in.
const MAX_TICKETS: usize = 64;
/// Settings of Flight's own among the session's options.
const COMPRESSION: &str = "flight.compression";
const TICKETS: &str = "flight.tickets";
const AUTHORIZATION: &str = "authorization";
/// Where clients of before put the token.
const TOKEN_BIN: &str = "auth-token-bin";
/// Where a client names another database than the gateway's own.
const DATABASE: &str = "database";
/// Bytes of parameters that may be bound at a time.
const MAX_PARAMETERS: usize = 256 << 20;
/// Rows of parameters that are on their way at a time.
const PIPELINE: usize = 256;

/// Drivers differ in whether they pad.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

type Outcome<T> = Result<T, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

/// What all calls share.
pub struct Door {
    pub ground: Ground,
    pub sessions: Sessions,
    pub admission: Mutex<Admission>,
}

fn unauthenticated(text: &str) -> Status {
    Failure::new("28000", text).hint("Log in with user and password: the handshake gives a token.").status()
}

fn header<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).and_then(|v| v.to_str().ok())
}

/// The token of a call.
fn token(metadata: &MetadataMap) -> Option<String> {
    let bearer = header(metadata, AUTHORIZATION)
        .and_then(|v| v.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    bearer.or_else(|| {
        let bytes = metadata.get_bin(TOKEN_BIN)?.to_bytes().ok()?;
        String::from_utf8(bytes.to_vec()).ok()
    })
}

/// User and password of a Basic header.
fn basic(metadata: &MetadataMap) -> Option<(String, String)> {
    let (scheme, encoded) = header(metadata, AUTHORIZATION)?.split_once(' ')?;
    let text = scheme.eq_ignore_ascii_case("basic").then(|| BASE64.decode(encoded.trim()).ok())??;
    let (user, password) = std::str::from_utf8(&text).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

impl Door {
    fn session(&self, metadata: &MetadataMap) -> Outcome<Arc<FlightSession>> {
        let token = token(metadata).ok_or_else(|| unauthenticated("no token"))?;
        self.sessions.get(&token).ok_or_else(|| unauthenticated("the token is not known, or its time is over"))
    }

    /// Ends sessions whose time is over, whatever they do.
    pub async fn sweep(&self) {
        for ended in self.sessions.sweep() {
            ended.cancel(&self.ground.shared).await;
        }
    }

    async fn log_in(&self, peer: Option<Peer>, user: String, password: String, database: Option<&str>) -> Outcome<String> {
        let peer = peer.ok_or_else(|| unauthenticated("a connection without an address"))?;
        let _on_its_way = self.admission.lock().admit(peer.ip, Instant::now()).map_err(|_| {
            Failure::new("53300", "too many logins from this address in a short time, or at all").hint("Keep tokens, and use them.").status()
        })?;
        self.sweep().await;
        if !self.sessions.has_room() {
            return Err(Failure::new("53300", "sorry, too many clients already").hint("Close sessions that are not used any more.").status());
        }
        let database = database.map_or_else(|| self.ground.shared.catalog.database().to_owned(), str::to_owned);
        let who = Credentials { user, password, database: database.clone() };
        let limit = self.ground.shared.config.login_timeout;
        let client = tokio::time::timeout(limit, Client::connect(&self.ground, peer, &who))
            .await
            .map_err(|_| Failure::new("57014", "canceling authentication due to timeout"))??;
        Ok(self.sessions.add(FlightSession::new(client, database)))
    }

    /// The transaction that a call names is the one that Flight began. Gives when that was, by which whoever executes something in it finds out
    /// whether it goes on (`check_within`).
    fn check_handle(session: &FlightSession, id: Option<&Bytes>) -> Outcome<Option<u64>> {
        let Some(id) = id.filter(|id| !id.is_empty()) else { return Ok(None) };
        match &*session.transaction.lock() {
            Some(t) if t.id.as_bytes() == &id[..] => Ok(Some(t.rests)),
            _ => Err(Failure::new("25000", "the transaction is not under way").hint("Begin it anew.").status()),
        }
    }

    /// A statement that is known by its tickets or by a handle.
    async fn prepare(session: &FlightSession, sql: &str, own: bool, transaction: Option<&Bytes>) -> Outcome<(String, Arc<Statement>)> {
        let within = Self::check_handle(session, transaction)?;
        if within.is_some() {
            check_within(within, &*session.client().await?)?;
        }
        let sql = placeholders::numbered(sql).into_owned();
        // Parts have no order among each other.
        let ordered = sql.to_ascii_lowercase().contains("order");
        let parts = if own || ordered { 1 } else { session.taste.lock().tickets.clamp(1, MAX_TICKETS) };
        let make = |name, described, reads| Statement::new(name, &sql, described, reads, within, if reads { parts } else { 1 });
        Ok(session.prepare(&sql, own, effects::words(&sql), make).await?)
    }

    /// Executes a statement, or joins the execution that is under way.
    fn run(&self, session: &Arc<FlightSession>, statement: &Arc<Statement>, params: Vec<Vec<Option<Vec<u8>>>>) -> Arc<Run> {
        let run = Run::new(statement.tickets, session.waiting.clone(), !statement.reads);
        session.watch(&run);
        let before = statement.run.lock().replace(run.clone());
        if let Some(before) = before.filter(|b| !b.is_over()) {
            before.leave();
        }
        let lists = statement.bound.lock().iter().any(|b| incoming::has_lists(&b.schema()));
        let (shared, session, statement, started) = (self.ground.shared.clone(), session.clone(), statement.clone(), run.clone());
        tokio::spawn(async move {
            match session.client().await {
                Ok(mut client) => {
                    if let Err(e) = statement.check(&session, &client) {
                        return started.fail(e);
                    }
                    if lists && let Err(e) = client.command(incoming::NULLS_IN_LISTS).await {
                        return started.fail(e);
                    }
                    started.execute(&shared, client, &statement, &params).await;
                }
                Err(e) => started.fail(e),
            }
        });
        run
    }

    /// What the client bound, as rows of parameters: one of none if nothing was.
    fn bound(statement: &Statement) -> Result<Vec<Vec<Option<Vec<u8>>>>, Failure> {
        rows_of(statement, &statement.bound.lock())
    }

    /// Where an answer can be had. What does more than read is done now: nobody might fetch what it gives.
    async fn info(
        &self,
        session: &Arc<FlightSession>,
        statement: &Arc<Statement>,
        descriptor: FlightDescriptor,
        ticket: impl Fn(usize) -> Vec<u8>,
    ) -> Outcome<FlightInfo> {
        let mut info = FlightInfo::new().with_descriptor(descriptor).try_with_schema(&statement.schema).map_err(internal)?;
        if !statement.reads {
            if session.is_full() {
                return Err(Failure::new("53400", "too many answers wait for somebody to read them")
                    .hint("Read them, or close their statements, first.")
                    .status());
            }
            let run = self.run(session, statement, Self::bound(statement)?);
            let nobody_waits = async {
                gone().await;
                run.stop.cancel();
                std::future::pending::<std::convert::Infallible>().await
            };
            if !statement.gives_rows() {
                let touched = tokio::select! { touched = run.ended() => touched?, never = nobody_waits => match never {} };
                statement.run.lock().take();
                return Ok(info.with_total_records(touched));
            }
            tokio::select! { done = run.done() => done?, never = nobody_waits => match never {} }
        }
        for n in 0..statement.tickets {
            info = info.with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(ticket(n))));
        }
        info.ordered = statement.tickets == 1;
        Ok(info)
    }

    /// A stream of an answer.
    fn answer(&self, session: &Arc<FlightSession>, statement: &Arc<Statement>, ticket: usize) -> Outcome<Response<Streamed<FlightData>>> {
        let under_way = statement.run.lock().clone();
        let run = match under_way {
            Some(run) if run.take(ticket) => run,
            // What does more than read is not done again because somebody asks twice.
            Some(run) if !statement.reads || statement.tickets > 1 && !run.is_taken() => {
                return Err(Failure::new("55000", "this part of the answer was read already").hint("Ask for the statement anew.").status());
            }
            _ => {
                let run = self.run(session, statement, Self::bound(statement)?);
                run.take(ticket);
                run
            }
        };
        let batches = futures::stream::unfold(Reader::new(run), |mut reader| async {
            reader.next().await.map(|next| (next, reader))
        });
        Ok(stream(session, statement.schema.clone(), batches))
    }

    async fn catalog_answer<F>(
        &self,
        metadata: &MetadataMap,
        answer: impl FnOnce(tokio::sync::OwnedMutexGuard<Client>, String) -> F,
    ) -> Outcome<Response<Streamed<FlightData>>>
    where
        F: Future<Output = Result<RecordBatch, Failure>>,
    {
        let session = self.session(metadata)?;
        let client = session.client().await?;
        let batch = answer(client, session.database.clone()).await?;
        Ok(one(&session, batch))
    }

    /// Where what the catalog says can be had: by the very command that asks for it.
    fn catalog_info(&self, request: &Request<FlightDescriptor>, command: &impl ProstMessageExt, schema: &Schema) -> Outcome<Response<FlightInfo>> {
        self.session(request.metadata())?;
        let ticket = Ticket::new(command.as_any().encode_to_vec());
        let info = FlightInfo::new()
            .with_descriptor(request.get_ref().clone())
            .try_with_schema(schema)
            .map_err(internal)?
            .with_endpoint(FlightEndpoint::new().with_ticket(ticket));
        Ok(Response::new(info))
    }

    /// Stops the statements that these tickets are of.
    async fn cancel(&self, session: &Arc<FlightSession>, info: &FlightInfo) -> CancelStatus {
        let mut found = CancelStatus::NotCancellable;
        for ticket in info.endpoint.iter().filter_map(|e| e.ticket.as_ref()) {
            let Ok(any) = arrow_flight::sql::Any::decode(&*ticket.ticket) else { continue };
            let handle = match Command::try_from(any) {
                Ok(Command::TicketStatementQuery(t)) => t.statement_handle,
                Ok(Command::CommandPreparedStatementQuery(t)) => t.prepared_statement_handle,
                _ => continue,
            };
            let Some((handle, _)) = read_handle(&handle) else { continue };
            let Ok(statement) = session.statement(&handle) else { continue };
            found = CancelStatus::Cancelled;
            // What was not begun, or is over, is nobody's work.
            let run = statement.run.lock().clone();
            if let Some(run) = run {
                if !run.is_over() {
                    run.stop.cancel();
                }
            }
        }
        found
    }

    async fn set_options(&self, session: &FlightSession, options: SetOptions) -> Outcome<SetOptionsResult> {
        let mut errors = HashMap::new();
        for (name, value) in options.options {
            let setting = value.setting();
            let outcome = match (name.as_str(), setting.as_deref()) {
                (COMPRESSION, v) => match compression(v) {
                    Some(c) => {
                        session.taste.lock().compression = c;
                        Ok(())
                    }
                    None => Err(messages::INVALID_VALUE),
                },
                (TICKETS, v) => match v.map_or(Ok(1), str::parse::<usize>) {
                    Ok(n @ 1..=MAX_TICKETS) => {
                        session.taste.lock().tickets = n;
                        Ok(())
                    }
                    _ => Err(messages::INVALID_VALUE),
                },
                ("catalog", Some(v)) if v == session.database => Ok(()),
                ("catalog", _) => Err(messages::INVALID_VALUE),
                (name, v) => {
                    let (name, v) = match (name, v) {
                        ("schema", Some(schema)) => ("search_path", Some(quoted(schema))),
                        ("schema", None) => ("search_path", None),
                        (name, v) => (name, v.map(str::to_owned)),
                    };
                    set(&mut *session.client().await?, name, v.as_deref()).await?
                }
            };
            if let Err(value) = outcome {
                errors.insert(name, OptionError { value });
            }
        }
        Ok(SetOptionsResult { errors })
    }

    async fn get_options(&self, session: &FlightSession) -> Outcome<GetOptionsResult> {
        let taste = *session.taste.lock();
        let mut client = session.client().await?;
        let rows = client.query("SELECT name, setting FROM pg_catalog.pg_settings", &[]).await?;
        let schema = client.query("SELECT pg_catalog.current_schema()", &[]).await?;
        let mut options: HashMap<String, OptionValue> = rows
            .into_iter()
            .filter_map(|row| match <[Option<String>; 2]>::try_from(row) {
                Ok([Some(name), value]) => Some((name, OptionValue::text(value.unwrap_or_default()))),
                _ => None,
            })
            .collect();
        let schema = schema.into_iter().flatten().next().flatten().unwrap_or_default();
        options.insert("catalog".into(), OptionValue::text(&session.database));
        options.insert("schema".into(), OptionValue::text(schema));
        options.insert(TICKETS.into(), OptionValue::text(taste.tickets.max(1).to_string()));
        let compression = match taste.compression {
            Some(CompressionType::LZ4_FRAME) => "lz4",
            Some(_) => "zstd",
            None => "none",
        };
        options.insert(COMPRESSION.into(), OptionValue::text(compression));
        Ok(GetOptionsResult { options })
    }
}

/// A setting of PostgreSQL's. The error is what the client is told of it.
async fn set(client: &mut Client, name: &str, value: Option<&str>) -> Result<Result<(), i32>, Failure> {
    let set = match value {
        Some(value) => {
            // The name is for the gateway to read as well: some settings are its own.
            let sql = format!("SELECT pg_catalog.set_config({}, $1, false)", text(name));
            client.query(&sql, &[Some(value)]).await
        }
        None => client.command(&format!("RESET {}", quoted(name))).await.map(|_| Vec::new()),
    };
    match set {
        Ok(_) => Ok(Ok(())),
        Err(e) if matches!(e.sqlstate(), "42704" | "42602") => Ok(Err(messages::INVALID_NAME)),
        Err(e) if e.sqlstate().starts_with("22") || e.sqlstate() == "42501" => Ok(Err(messages::INVALID_VALUE)),
        Err(e) => Err(e),
    }
}

fn compression(name: Option<&str>) -> Option<Option<CompressionType>> {
    match name.unwrap_or("none").to_ascii_lowercase().as_str() {
        "none" | "" | "off" => Some(None),
        "lz4" | "lz4_frame" => Some(Some(CompressionType::LZ4_FRAME)),
        "zstd" => Some(Some(CompressionType::ZSTD)),
        _ => None,
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\"").replace('\0', ""))
}

pub(super) fn broken(e: FlightError) -> Failure {
    Failure::new("08P01", format!("the rows cannot be read: {e}"))
}

fn internal(e: impl std::fmt::Display) -> Status {
    Failure::new("XX000", e.to_string()).status()
}

/// All that a client sends, as far as a message may be long.
async fn all_of(stream: PeekableFlightDataStream) -> Outcome<Vec<RecordBatch>> {
    let mut rest = batches(stream);
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = next_of(&mut rest).await? {
        bytes += batch.get_array_memory_size();
        if bytes > MAX_PARAMETERS {
            return Err(Failure::new("54000", "too many parameters at a time").hint("Bind fewer rows at a time, or use bulk ingestion.").status());
        }
        all.push(batch);
    }
    // No rows of parameters are no executions; no parameters at all are another thing.
    if all.is_empty()
        && let Some(schema) = rest.schema().filter(|s| !s.fields().is_empty())
    {
        all.push(RecordBatch::new_empty(schema.clone()));
    }
    Ok(all)
}

/// A statement's handle and the part of its answer that is meant.
fn read_handle(handle: &[u8]) -> Option<(String, usize)> {
    let text = std::str::from_utf8(handle).ok()?;
    match text.split_once('/') {
        Some((handle, part)) => Some((handle.to_owned(), part.parse().ok()?)),
        None => Some((text.to_owned(), 0)),
    }
}

fn handle_of(handle: &[u8]) -> Outcome<(String, usize)> {
    read_handle(handle).ok_or_else(|| Failure::new("26000", "no statement has such a handle").status())
}

/// The batches that a client sends; its first message may carry the command alone.
pub(super) fn batches(stream: PeekableFlightDataStream) -> FlightRecordBatchStream {
    let data = stream.try_filter(|data| futures::future::ready(!data.data_header.is_empty())).map_err(FlightError::from);
    FlightRecordBatchStream::new_from_flight_data(data)
}

/// The next of them. What a client that gives up has sent may look as if it were all: that is an error, and nothing is waited for then.
pub(super) async fn next_of(rows: &mut FlightRecordBatchStream) -> Result<Option<RecordBatch>, FlightError> {
    let next = tokio::select! {
        biased;
        () = gone() => None,
        next = rows.try_next() => next?,
    };
    match next {
        None if is_gone() => Err(given_up().status().into()),
        next => Ok(next),
    }
}

fn rows_of(statement: &Statement, batches: &[RecordBatch]) -> Result<Vec<Vec<Option<Vec<u8>>>>, Failure> {
    let types = &statement.described.parameters;
    let mut rows = Vec::new();
    for batch in batches.iter().filter(|b| b.num_columns() > 0) {
        for row in 0..batch.num_rows() {
            rows.push(incoming::parameters(batch, row, types)?);
        }
    }
    if rows.is_empty() && (batches.is_empty() || types.is_empty()) {
        rows.push(Vec::new());
    }
    Ok(rows)
}

fn options(session: &FlightSession) -> IpcWriteOptions {
    let compression = session.taste.lock().compression;
    IpcWriteOptions::default().try_with_compression(compression).unwrap_or_default()
}

fn stream(
    session: &FlightSession,
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, Failure>> + Send + 'static,
) -> Response<Streamed<FlightData>> {
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_options(options(session))
        .with_max_flight_data_size(MESSAGE)
        .build(batches.map_err(|e| FlightError::from(e.status())));
    Response::new(Box::pin(encoded.map_err(Status::from)))
}

fn one(session: &FlightSession, batch: RecordBatch) -> Response<Streamed<FlightData>> {
    stream(session, batch.schema(), futures::stream::iter([Ok(batch)]))
}

fn schema_bytes(schema: &Schema) -> Outcome<Bytes> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into().map_err(internal)?;
    Ok(bytes)
}

fn result_of(body: Vec<u8>) -> Response<Streamed<arrow_flight::Result>> {
    Response::new(Box::pin(futures::stream::iter([Ok(arrow_flight::Result { body: body.into() })])))
}

fn named(catalog: Option<String>, schema: Option<String>, table: String) -> Named {
    Named { catalog, schema, table: Some(table) }
}

#[tonic::async_trait]
impl FlightSqlService for Door {
    type FlightService = Door;

    async fn do_handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Outcome<Response<Streamed<HandshakeResponse>>> {
        let peer = request.extensions().get::<Peer>().copied();
        let database = header(request.metadata(), DATABASE).map(str::to_owned);
        let (user, password) = match basic(request.metadata()) {
            Some(both) => both,
            None => {
                let first = request.into_inner().message().await?.map(|m| m.payload).unwrap_or_default();
                let auth = BasicAuth::decode(first).ok().filter(|a| !a.username.is_empty());
                let auth = auth.ok_or_else(|| unauthenticated("no user and password"))?;
                (auth.username, auth.password)
            }
        };
        let token = self.log_in(peer, user, password, database.as_deref()).await?;
        let payload = Bytes::from(token.clone().into_bytes());
        let answer: Streamed<HandshakeResponse> =
            Box::pin(futures::stream::iter([Ok(HandshakeResponse { protocol_version: 0, payload })]));
        let mut response = Response::new(answer);
        response.metadata_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().map_err(internal)?);
        Ok(response)
    }

    async fn get_flight_info_statement(&self, query: CommandStatementQuery, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        let session = self.session(request.metadata())?;
        let (handle, statement) = Self::prepare(&session, &query.query, false, query.transaction_id.as_ref()).await?;
        let ticket = |n| TicketStatementQuery { statement_handle: format!("{handle}/{n}").into() }.as_any().encode_to_vec();
        Ok(Response::new(self.info(&session, &statement, request.into_inner(), ticket).await?))
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Outcome<Response<FlightInfo>> {
        let session = self.session(request.metadata())?;
        let (handle, _) = handle_of(&query.prepared_statement_handle)?;
        let statement = session.statement(&handle)?;
        if statement.within.is_some() {
            statement.check(&session, &*session.client().await?)?;
        }
        let ticket = |_| query.as_any().encode_to_vec();
        Ok(Response::new(self.info(&session, &statement, request.into_inner(), ticket).await?))
    }

    async fn get_flight_info_catalogs(&self, query: CommandGetCatalogs, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        self.catalog_info(&request, &query, &query.into_builder().schema())
    }

    async fn get_flight_info_schemas(&self, query: CommandGetDbSchemas, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        self.catalog_info(&request, &query, &CommandGetDbSchemas::default().into_builder().schema())
    }

    async fn get_flight_info_tables(&self, query: CommandGetTables, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        self.catalog_info(&request, &query, &metadata::tables_schema(query.include_schema))
    }

    async fn get_flight_info_table_types(&self, query: CommandGetTableTypes, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        self.catalog_info(&request, &query, &query.into_builder().schema())
    }

    async fn get_flight_info_sql_info(&self, query: CommandGetSqlInfo, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        self.catalog_info(&request, &query, arrow_flight::sql::metadata::SqlInfoDataBuilder::schema())
    }

    async fn get_flight_info_primary_keys(&self, query: CommandGetPrimaryKeys, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        self.catalog_info(&request, &query, &metadata::primary_keys_schema())
    }

    async fn get_flight_info_exported_keys(&self, query: CommandGetExportedKeys, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        self.catalog_info(&request, &query, &metadata::foreign_keys_schema())
    }

    async fn get_flight_info_imported_keys(&self, query: CommandGetImportedKeys, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        self.catalog_info(&request, &query, &metadata::foreign_keys_schema())
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Outcome<Response<FlightInfo>> {
        self.catalog_info(&request, &query, &metadata::foreign_keys_schema())
    }

    async fn get_flight_info_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        let infos = metadata::TYPE_INFO.as_ref().ok_or_else(|| internal("no types"))?;
        self.catalog_info(&request, &query, &infos.schema())
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let session = self.session(request.metadata())?;
        let (handle, part) = handle_of(&ticket.statement_handle)?;
        self.answer(&session, &session.statement(&handle)?, part)
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Outcome<Response<Streamed<FlightData>>> {
        let session = self.session(request.metadata())?;
        let (handle, _) = handle_of(&query.prepared_statement_handle)?;
        self.answer(&session, &session.statement(&handle)?, 0)
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        self.catalog_answer(request.metadata(), |_, database| async move { metadata::catalogs(query, &database) }).await
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let answer = |mut client: tokio::sync::OwnedMutexGuard<Client>, database: String| async move {
            metadata::schemas(&mut client, query, &database).await
        };
        self.catalog_answer(request.metadata(), answer).await
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let answer = |mut client: tokio::sync::OwnedMutexGuard<Client>, database: String| async move {
            metadata::tables(&mut client, query, &database).await
        };
        self.catalog_answer(request.metadata(), answer).await
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let session = self.session(request.metadata())?;
        let mut builder = query.into_builder();
        metadata::TABLE_TYPES.iter().for_each(|t| builder.append(t));
        Ok(one(&session, builder.build().map_err(internal)?))
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let session = self.session(request.metadata())?;
        let infos = metadata::SQL_INFO.as_ref().ok_or_else(|| internal("nothing is known of this server"))?;
        Ok(one(&session, query.into_builder(infos).build().map_err(internal)?))
    }

    async fn do_get_primary_keys(&self, query: CommandGetPrimaryKeys, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let answer = |mut client: tokio::sync::OwnedMutexGuard<Client>, database: String| async move {
            metadata::primary_keys(&mut client, named(query.catalog, query.db_schema, query.table), &database).await
        };
        self.catalog_answer(request.metadata(), answer).await
    }

    async fn do_get_exported_keys(&self, query: CommandGetExportedKeys, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let answer = |mut client: tokio::sync::OwnedMutexGuard<Client>, database: String| async move {
            let referred = named(query.catalog, query.db_schema, query.table);
            metadata::foreign_keys(&mut client, referred, Named::default(), &database).await
        };
        self.catalog_answer(request.metadata(), answer).await
    }

    async fn do_get_imported_keys(&self, query: CommandGetImportedKeys, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let answer = |mut client: tokio::sync::OwnedMutexGuard<Client>, database: String| async move {
            let referring = named(query.catalog, query.db_schema, query.table);
            metadata::foreign_keys(&mut client, Named::default(), referring, &database).await
        };
        self.catalog_answer(request.metadata(), answer).await
    }

    async fn do_get_cross_reference(&self, query: CommandGetCrossReference, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let answer = |mut client: tokio::sync::OwnedMutexGuard<Client>, database: String| async move {
            let referred = named(query.pk_catalog, query.pk_db_schema, query.pk_table);
            let referring = named(query.fk_catalog, query.fk_db_schema, query.fk_table);
            metadata::foreign_keys(&mut client, referred, referring, &database).await
        };
        self.catalog_answer(request.metadata(), answer).await
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, request: Request<Ticket>) -> Outcome<Response<Streamed<FlightData>>> {
        let session = self.session(request.metadata())?;
        let infos = metadata::TYPE_INFO.as_ref().ok_or_else(|| internal("no types"))?;
        Ok(one(&session, query.into_builder(infos).build().map_err(internal)?))
    }

    async fn do_put_statement_update(&self, command: CommandStatementUpdate, request: Request<PeekableFlightDataStream>) -> Outcome<i64> {
        let session = self.session(request.metadata())?;
        let (_, statement) = Self::prepare(&session, &command.query, false, command.transaction_id.as_ref()).await?;
        let mut client = session.client().await?;
        statement.check(&session, &client)?;
        Ok(client.update_all(&statement.name, &[Vec::new()], PIPELINE).await?)
    }

    async fn do_put_statement_ingest(&self, command: CommandStatementIngest, request: Request<PeekableFlightDataStream>) -> Outcome<i64> {
        let session = self.session(request.metadata())?;
        let within = Self::check_handle(&session, command.transaction_id.as_ref())?;
        if command.catalog.as_ref().is_some_and(|c| !c.is_empty() && *c != session.database) {
            return Err(Failure::new("0A000", "rows can only be put into the session's own database").status());
        }
        Ok(ingest::ingest(&session, &command, within, request.into_inner()).await?)
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Outcome<DoPutPreparedStatementResult> {
        let session = self.session(request.metadata())?;
        let (handle, _) = handle_of(&query.prepared_statement_handle)?;
        let statement = session.statement(&handle)?;
        let bound = all_of(request.into_inner()).await?;
        // What cannot be a parameter is said where it was bound.
        rows_of(&statement, &bound)?;
        *statement.bound.lock() = bound;
        // What was executed before was of other parameters.
        if let Some(before) = statement.run.lock().take().filter(|before| before.is_untouched()) {
            before.leave();
        }
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(query.prepared_statement_handle) })
    }

    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Outcome<i64> {
        let session = self.session(request.metadata())?;
        let (handle, _) = handle_of(&query.prepared_statement_handle)?;
        let statement = session.statement(&handle)?;
        let mut given = all_of(request.into_inner()).await?;
        if !given.iter().any(|b| b.num_columns() > 0) {
            given.clone_from(&statement.bound.lock());
        }
        let rows = rows_of(&statement, &given)?;
        let mut client = session.client().await?;
        statement.check(&session, &client)?;
        if given.iter().any(|b| incoming::has_lists(&b.schema())) {
            client.command(incoming::NULLS_IN_LISTS).await?;
        }
        Ok(client.update_all(&statement.name, &rows, PIPELINE).await?)
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Outcome<ActionCreatePreparedStatementResult> {
        let session = self.session(request.metadata())?;
        let (handle, statement) = Self::prepare(&session, &query.query, true, query.transaction_id.as_ref()).await?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.into(),
            dataset_schema: if statement.gives_rows() { schema_bytes(&statement.schema)? } else { Bytes::new() },
            parameter_schema: schema_bytes(&statement.parameter_schema())?,
        })
    }

    async fn do_action_close_prepared_statement(&self, query: ActionClosePreparedStatementRequest, request: Request<Action>) -> Outcome<()> {
        let session = self.session(request.metadata())?;
        let (handle, _) = handle_of(&query.prepared_statement_handle)?;
        session.close_statement(&handle);
        Ok(())
    }

    async fn do_action_begin_transaction(&self, _: ActionBeginTransactionRequest, request: Request<Action>) -> Outcome<ActionBeginTransactionResult> {
        let session = self.session(request.metadata())?;
        let mut client = session.client().await?;
        if client.status() != b'I' {
            return Err(Failure::new("25001", "a transaction is under way").hint("A session has one transaction at a time: end it first.").status());
        }
        client.command("BEGIN").await?;
        if is_gone() {
            client.command("ROLLBACK").await?;
            return Err(given_up().status());
        }
        let id = random_id();
        *session.transaction.lock() = Some(Transaction { id: id.clone(), rests: client.rests(), savepoints: Vec::new() });
        Ok(ActionBeginTransactionResult { transaction_id: id.into() })
    }

    async fn do_action_end_transaction(&self, query: ActionEndTransactionRequest, request: Request<Action>) -> Outcome<()> {
        let session = self.session(request.metadata())?;
        if query.transaction_id.is_empty() {
            return Err(Failure::new("25000", "no transaction is named").status());
        }
        Self::check_handle(&session, Some(&query.transaction_id))?;
        let sql = match query.action() {
            EndTransaction::Commit => "COMMIT",
            EndTransaction::Rollback => "ROLLBACK",
            EndTransaction::Unspecified => return Err(Failure::new("22023", "a transaction is committed or rolled back").status()),
        };
        let mut client = session.client().await?;
        let began = session.transaction.lock().take();
        if began.is_none_or(|t| t.rests != client.rests()) {
            return Err(ended_by_sql().status());
        }
        let done = client.command(sql).await?;
        match sql == "COMMIT" && done == "ROLLBACK" {
            true => Err(Failure::new("25P02", "the transaction had failed and was rolled back").status()),
            false => Ok(()),
        }
    }

    async fn do_action_begin_savepoint(&self, query: ActionBeginSavepointRequest, request: Request<Action>) -> Outcome<ActionBeginSavepointResult> {
        let session = self.session(request.metadata())?;
        let within = Self::check_handle(&session, Some(&query.transaction_id))?;
        let id = format!("flight_{}", random_id());
        let mut client = session.client().await?;
        check_within(within, &client)?;
        client.command(&format!("SAVEPOINT {id}")).await?;
        drop(client);
        if let Some(t) = &mut *session.transaction.lock() {
            t.savepoints.push(id.clone());
        }
        Ok(ActionBeginSavepointResult { savepoint_id: id.into() })
    }

    async fn do_action_end_savepoint(&self, query: ActionEndSavepointRequest, request: Request<Action>) -> Outcome<()> {
        let session = self.session(request.metadata())?;
        // Only names that were made here become SQL.
        let known = session.transaction.lock().as_ref().and_then(|t| t.savepoints.iter().find(|s| s.as_bytes() == &query.savepoint_id[..]).cloned());
        let id = known.ok_or_else(|| Failure::new("3B001", "the savepoint does not exist").status())?;
        let mut client = session.client().await?;
        // `EndSavepoint`: 1 releases, 2 rolls back.
        let sql = match query.action {
            1 => format!("RELEASE SAVEPOINT {id}"),
            2 => format!("ROLLBACK TO SAVEPOINT {id}"),
            _ => return Err(Failure::new("22023", "a savepoint is released or rolled back to").status()),
        };
        client.command(&sql).await?;
        Ok(())
    }

    async fn do_action_cancel_query(&self, query: ActionCancelQueryRequest, request: Request<Action>) -> Outcome<ActionCancelQueryResult> {
        let session = self.session(request.metadata())?;
        let info = FlightInfo::decode(query.info).map_err(internal)?;
        // `CancelResult`: 1 cancelled, 3 not cancellable.
        let result = if self.cancel(&session, &info).await == CancelStatus::Cancelled { 1 } else { 3 };
        Ok(ActionCancelQueryResult { result })
    }

    async fn do_action_fallback(&self, request: Request<Action>) -> Outcome<Response<Streamed<arrow_flight::Result>>> {
        let session = self.session(request.metadata())?;
        let kind = request.get_ref().r#type.clone();
        let body = request.get_ref().body.clone();
        match kind.as_str() {
            messages::SET_OPTIONS => {
                let options = SetOptions::decode(body).map_err(internal)?;
                Ok(result_of(self.set_options(&session, options).await?.encode_to_vec()))
            }
            messages::GET_OPTIONS => Ok(result_of(self.get_options(&session).await?.encode_to_vec())),
            messages::CLOSE => {
                let ended = token(request.metadata()).and_then(|token| self.sessions.close(&token));
                if let Some(ended) = ended {
                    ended.cancel(&self.ground.shared).await;
                }
                Ok(result_of(CloseResult { status: messages::CLOSED }.encode_to_vec()))
            }
            messages::CANCEL_INFO => {
                let info = CancelFlightInfoRequest::decode(body).map_err(internal)?.info.unwrap_or_default();
                let status = self.cancel(&session, &info).await;
                Ok(result_of(CancelFlightInfoResult::new(status).encode_to_vec()))
            }
            other => Err(Failure::new("0A000", format!("the action \"{other}\" is not known here")).status()),
        }
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let actions = [
            (messages::SET_OPTIONS, "Sets settings of the session. Request: SetSessionOptionsRequest. Response: SetSessionOptionsResult"),
            (messages::GET_OPTIONS, "Shows settings of the session. Request: GetSessionOptionsRequest. Response: GetSessionOptionsResult"),
            (messages::CLOSE, "Ends the session. Request: CloseSessionRequest. Response: CloseSessionResult"),
            (messages::CANCEL_INFO, "Stops a statement. Request: CancelFlightInfoRequest. Response: CancelFlightInfoResult"),
        ];
        Some(actions.map(|(kind, what)| Ok(ActionType { r#type: kind.into(), description: what.into() })).into())
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

impl Door {
    /// What an answer will look like, of a statement that is not executed for it.
    async fn schema_of(&self, request: Request<FlightDescriptor>) -> Outcome<Response<SchemaResult>> {
        let any = arrow_flight::sql::Any::decode(&*request.get_ref().cmd).map_err(internal)?;
        let schema = match Command::try_from(any).map_err(internal)? {
            Command::CommandStatementQuery(query) => {
                let session = self.session(request.metadata())?;
                let (_, statement) = Self::prepare(&session, &query.query, false, query.transaction_id.as_ref()).await?;
                schema_bytes(&statement.schema)?
            }
            Command::CommandPreparedStatementQuery(query) => {
                let session = self.session(request.metadata())?;
                schema_bytes(&session.statement(&handle_of(&query.prepared_statement_handle)?.0)?.schema)?
            }
            _ => FlightService::get_flight_info(self, request).await?.into_inner().schema,
        };
        Ok(Response::new(SchemaResult { schema }))
    }
}

/// The door, with every call in a task of its own.
pub struct Service(pub Arc<Door>);

/// Runs a call to its end, even if its client goes: what it has PostgreSQL do then is stopped.
async fn whole<T: Send + 'static>(call: impl Future<Output = Outcome<T>> + Send + 'static) -> Outcome<T> {
    let gone = CancellationToken::new();
    let _waiting = gone.clone().drop_guard();
    tokio::spawn(GONE.scope(gone, call)).await.unwrap_or_else(|e| Err(internal(format!("a call failed: {e}"))))
}

macro_rules! whole {
    ($self:ident, $request:ident, $call:ident) => {{
        let door = $self.0.clone();
        whole(async move { FlightService::$call(&*door, $request).await }).await
    }};
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Streamed<HandshakeResponse>;
    type ListFlightsStream = Streamed<FlightInfo>;
    type DoGetStream = Streamed<FlightData>;
    type DoPutStream = Streamed<PutResult>;
    type DoActionStream = Streamed<arrow_flight::Result>;
    type ListActionsStream = Streamed<ActionType>;
    type DoExchangeStream = Streamed<FlightData>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Outcome<Response<Self::HandshakeStream>> {
        whole!(self, request, handshake)
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Outcome<Response<Self::ListFlightsStream>> {
        Err(Failure::new("0A000", "there are no flights but those of statements").status())
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Outcome<Response<FlightInfo>> {
        whole!(self, request, get_flight_info)
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Outcome<Response<PollInfo>> {
        Err(Failure::new("0A000", "PollFlightInfo is not spoken here").hint("Use GetFlightInfo, which does not wait for rows.").status())
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Outcome<Response<SchemaResult>> {
        let door = self.0.clone();
        whole(async move { door.schema_of(request).await }).await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Outcome<Response<Self::DoGetStream>> {
        whole!(self, request, do_get)
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Outcome<Response<Self::DoPutStream>> {
        whole!(self, request, do_put)
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Outcome<Response<Self::DoExchangeStream>> {
        Err(Failure::new("0A000", "DoExchange is not spoken here").status())
    }

    async fn do_action(&self, request: Request<Action>) -> Outcome<Response<Self::DoActionStream>> {
        whole!(self, request, do_action)
    }

    async fn list_actions(&self, request: Request<Empty>) -> Outcome<Response<Self::ListActionsStream>> {
        whole!(self, request, list_actions)
    }
}
