//! Elasticsearch's `_bulk`, so that Beats, Logstash, Fluent Bit, Vector and its own clients can send rows as they are used
//! to: `POST /_bulk`, `POST /{index}/_bulk`, and one document at a time. What such clients ask before they send is
//! answered by [`cluster`]. Not a search engine.
//!
//! - `index` and `create` add a row to the table that the index means ([`Indices`]); the whole request is one transaction,
//!   answered after its commit, with one answer an item. A document that is no row is a dead letter and gets 400.
//! - Tables are append-only: `update`, `delete` and conditions on versions get 400.
//! - An `_id` is kept in the table's overflow column (or its column `_id`). It tells no two documents apart: what is sent
//!   twice is there twice, unless the request has an `Idempotency-Key`.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::auth::Grant;
use super::body::too_large;
use super::store::{Job, Key, Part};
use super::{Service, idempotency_key, observe, remembered, whole};
use crate::batch::Rejected;
use crate::decode::envelope::{self, Envelope};
use crate::decode::{Field, Value};
use crate::letters::write::TOO_LARGE;
use crate::target::{Target, quote_ident};
use crate::topics::{self, TableRoute};
use crate::{Error, Result};

mod cluster;
mod indices;
mod parse;

pub use indices::Indices;
use parse::{Action, Item, Malformed};

/// Different indices that one request may name.
const MAX_INDICES: usize = 1000;

/// The routes of an Elasticsearch that only takes documents in.
pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/_bulk", post(bulk_all).put(bulk_all))
        .route("/{index}/_bulk", post(bulk_one).put(bulk_one))
        .route("/{index}/_doc", post(document))
        .route("/{index}/_doc/{id}", post(document_named).put(document_named))
        .route("/{index}/_create/{id}", post(document_named).put(document_named))
        .merge(cluster::routes())
        .layer(middleware::map_response(product))
}

/// Clients of Elasticsearch talk to nothing that does not say this.
async fn product(mut response: Response) -> Response {
    response.headers_mut().insert("x-elastic-product", HeaderValue::from_static("Elasticsearch"));
    response
}

#[derive(Debug, Deserialize)]
struct Parameters {
    filter_path: Option<String>,
}

async fn bulk_all(
    State(service): State<Arc<Service>>,
    Extension(grant): Extension<Grant>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    service.bulk(None, grant, parameters, headers, body).await
}

async fn bulk_one(
    State(service): State<Arc<Service>>,
    Extension(grant): Extension<Grant>,
    Path(index): Path<String>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    service.bulk(Some(index), grant, parameters, headers, body).await
}

async fn document(
    State(service): State<Arc<Service>>,
    Extension(grant): Extension<Grant>,
    Path(index): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    service.single(index, None, grant, headers, body).await
}

async fn document_named(
    State(service): State<Arc<Service>>,
    Extension(grant): Extension<Grant>,
    Path((index, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    service.single(index, Some(id), grant, headers, body).await
}

/// An error as Elasticsearch words it.
fn refused(status: StatusCode, kind: &str, reason: &str) -> Response {
    let cause = json!({ "type": kind, "reason": reason });
    let body = json!({
        "error": { "root_cause": [cause], "type": kind, "reason": reason },
        "status": status.as_u16(),
    });
    (status, Json(body)).into_response()
}

fn malformed(why: Malformed, max: usize) -> Response {
    match why {
        Malformed::Wrong(why) => refused(StatusCode::BAD_REQUEST, "illegal_argument_exception", &why),
        Malformed::TooMany => too_large(max),
    }
}

/// What becomes of an item.
#[derive(Debug, Clone)]
enum Fate {
    /// In this part.
    Row(usize),
    Refused {
        status: u16,
        kind: &'static str,
        reason: String,
    },
}

impl Fate {
    fn refused(status: u16, kind: &'static str, reason: impl Into<String>) -> Fate {
        Fate::Refused { status, kind, reason: reason.into() }
    }
}

/// The tables of a request and which of them each index means.
struct Tables {
    targets: Vec<Target>,
    by_index: HashMap<String, Result<usize, Fate>>,
}

impl Service {
    async fn bulk(
        self: &Arc<Service>,
        index: Option<String>,
        grant: Grant,
        parameters: Parameters,
        headers: HeaderMap,
        body: Body,
    ) -> Response {
        let began = Instant::now();
        let short = parameters.filter_path.as_deref().is_some_and(is_short);
        let answer = self.read_bulk(index, grant, short, &headers, body, began).await;
        observe("bulk", &answer, began);
        answer
    }

    async fn read_bulk(
        self: &Arc<Service>,
        index: Option<String>,
        grant: Grant,
        short: bool,
        headers: &HeaderMap,
        body: Body,
        began: Instant,
    ) -> Response {
        let key = match idempotency_key(headers) {
            Ok(key) => key,
            Err(why) => return refused(StatusCode::BAD_REQUEST, "illegal_argument_exception", why),
        };
        if let Some(full) = self.full() {
            return full;
        }
        let packed = match self.room.read(headers, body).await {
            Ok(packed) => packed,
            Err(answer) => return answer,
        };
        let service = self.clone();
        // On a task of its own, as in the other door.
        let answer = tokio::spawn(async move {
            let _turn = service.turn().await?;
            let body = service.unpack(packed).await?;
            let max = service.config.max_unpacked_bytes;
            let default = index.clone();
            let parsing = move || (parse::parse(&body, default.as_deref()), body);
            let (items, body) = match tokio::task::spawn_blocking(parsing).await {
                Ok((Ok(items), body)) => (items, body),
                Ok((Err(why), _)) => return Err(malformed(why, max)),
                Err(e) => return Err(service.refusal(Error::Internal(e.to_string()))),
            };
            let request = Bulk { items, body, index, key, short, began };
            service.store_bulk(request, &grant).await
        });
        whole(answer.await)
    }

    async fn store_bulk(&self, request: Bulk, grant: &Grant) -> Result<Response, Response> {
        let stored = async {
            let mut conn = self.pool.acquire().await?;
            let tables = self.tables(&mut conn, &request.items, grant).await?;
            let key = request.key(&tables);
            if let Some(answer) = remembered(&key, &mut conn).await? {
                return Ok(answer.into_response());
            }
            let max_record = self.config.max_record_bytes;
            let routes = self.config.routes.clone();
            let decoding = move || request.decode(tables, &routes, max_record);
            let decoded = tokio::task::spawn_blocking(decoding).await;
            let (request, parts, fates) = decoded.map_err(|e| Error::Internal(e.to_string()))??;
            let bytes = request.body.len() as u64;
            let answer = |refused: &[Vec<Rejected>]| request.answer(&parts, &fates, refused);
            if parts.iter().all(|p| p.batch.rows() == 0 && p.batch.rejected.is_empty()) {
                return Ok(json_text(answer(&vec![Vec::new(); parts.len()])));
            }
            let job = Job { parts: &parts, key: key.as_ref(), door: "bulk", bytes, answer: &answer };
            Ok(job.store(&mut conn).await?.into_response())
        };
        stored.await.map_err(|e| {
            let retry = self.refusal_is_away(&e);
            let (status, reason) = self.explain(e);
            if retry { super::away(&reason) } else { refused(status, "illegal_argument_exception", &reason) }
        })
    }

    fn refusal_is_away(&self, error: &Error) -> bool {
        error.is_transient() || matches!(error, Error::Fenced(_))
    }

    /// Looks up the table of each index that the items name.
    async fn tables(&self, conn: &mut PgConnection, items: &[Item], grant: &Grant) -> Result<Tables> {
        let mut tables = Tables { targets: Vec::new(), by_index: HashMap::new() };
        for item in items {
            if tables.by_index.contains_key(&item.index) {
                continue;
            }
            if tables.by_index.len() == MAX_INDICES {
                return Err(Error::Unmappable(format!("more than {MAX_INDICES} indices in one request")));
            }
            let found = match self.table_of(conn, &item.index).await? {
                Some(target) if !grant.allows(&target.display()) => {
                    Err(Fate::refused(403, "security_exception", "this token may not add to this table"))
                }
                Some(target) => {
                    let known = tables.targets.iter().position(|t| t.relid == target.relid);
                    Ok(known.unwrap_or_else(|| {
                        tables.targets.push(target);
                        tables.targets.len() - 1
                    }))
                }
                None => Err(Fate::refused(
                    404,
                    "index_not_found_exception",
                    format!(
                        "no such index [{}]: neither a tiered table nor a pattern of http.indices",
                        item.index
                    ),
                )),
            };
            tables.by_index.insert(item.index.clone(), found);
        }
        Ok(tables)
    }

    /// The table that an index means, if there is one.
    async fn table_of(&self, conn: &mut PgConnection, index: &str) -> Result<Option<Target>> {
        let name = self.config.indices.table(index);
        // An index name such as `web-1` is a table's only in quotes.
        for name in [name.to_owned(), quote_ident(name)] {
            match Target::find(&mut *conn, &name).await {
                Ok(target) => return Ok(Some(target)),
                Err(Error::UnknownTable(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// One document, as a bulk request of one item.
    async fn single(
        self: &Arc<Service>,
        index: String,
        id: Option<String>,
        grant: Grant,
        headers: HeaderMap,
        body: Body,
    ) -> Response {
        let began = Instant::now();
        let answer = self.read_single(index, id, grant, &headers, body, began).await;
        observe("bulk", &answer, began);
        answer
    }

    async fn read_single(
        self: &Arc<Service>,
        index: String,
        id: Option<String>,
        grant: Grant,
        headers: &HeaderMap,
        body: Body,
        began: Instant,
    ) -> Response {
        let key = match idempotency_key(headers) {
            Ok(key) => key,
            Err(why) => return refused(StatusCode::BAD_REQUEST, "illegal_argument_exception", why),
        };
        if let Some(full) = self.full() {
            return full;
        }
        let packed = match self.room.read(headers, body).await {
            Ok(packed) => packed,
            Err(answer) => return answer,
        };
        let service = self.clone();
        let answer = tokio::spawn(async move {
            let _turn = service.turn().await?;
            let body = service.unpack(packed).await?;
            let (action, document) = (Action::Index, 0..body.len());
            let items = vec![Item { action, index, id, document, line: 1, conditional: false }];
            let request = Bulk { items, body, index: None, key, short: false, began };
            service.store_bulk(request, &grant).await
        });
        let answer = whole(answer.await);
        if answer.status() != StatusCode::OK { answer } else { first_item(answer).await }
    }
}

/// The answer of the only item, as the answer of the request.
async fn first_item(answer: Response) -> Response {
    // Made here a moment ago, of one item.
    let Ok(bytes) = axum::body::to_bytes(answer.into_body(), 1 << 20).await else {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, "exception", "the answer is too long");
    };
    let whole: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut item = whole["items"][0]["index"].clone();
    let status = item["status"].as_u64().and_then(|s| StatusCode::from_u16(s as u16).ok());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let (false, Some(fields)) = (status.is_success(), item.as_object_mut()) {
        fields.retain(|name, _| name == "error" || name == "status");
    }
    (status, Json(item)).into_response()
}

/// True if the asker wants no more than what tells good items from bad ones.
fn is_short(filter_path: &str) -> bool {
    filter_path.split(',').map(str::trim).all(|p| {
        matches!(p, "errors" | "took" | "items.*.status" | "items.**.status")
            || p.starts_with("items.*.error")
    })
}

fn json_text(body: String) -> Response {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A bulk request that was read.
struct Bulk {
    items: Vec<Item>,
    body: Vec<u8>,
    index: Option<String>,
    key: Option<String>,
    short: bool,
    began: Instant,
}

impl Bulk {
    /// The key belongs to the first table that rows of the request go to; the index of the address is part of what
    /// is sent.
    fn key(&self, tables: &Tables) -> Option<Key> {
        let relid = tables.targets.first()?.relid;
        let mut hash = Sha256::new();
        hash.update(self.index.as_deref().unwrap_or_default());
        hash.update([0]);
        hash.update(&self.body);
        Some(Key { relid, key: self.key.clone()?, hash: hex::encode(hash.finalize()) })
    }

    /// Rows of each table, and the fate of each item as far as it is known.
    fn decode(
        self,
        tables: Tables,
        routes: &[TableRoute],
        max_record: usize,
    ) -> Result<(Bulk, Vec<Part>, Vec<Fate>)> {
        let mut parts = Vec::with_capacity(tables.targets.len());
        let mut envelopes = Vec::with_capacity(tables.targets.len());
        for target in tables.targets {
            let route = topics::of_table(routes, &target.schema, &target.name);
            // What shippers wrap a line in is found out, unless it is said.
            let said = route.map(|r| r.envelope).filter(|e| *e != Envelope::Plain);
            envelopes.push(said.unwrap_or(Envelope::Auto));
            let mut part = Part::of(target, route)?;
            part.format = envelopes[envelopes.len() - 1].name();
            parts.push(part);
        }
        let mut fates = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let at = match tables.by_index.get(&item.index) {
                Some(Ok(at)) => *at,
                Some(Err(fate)) => {
                    fates.push(fate.clone());
                    continue;
                }
                None => return Err(Error::Internal("an index was not looked up".to_owned())),
            };
            fates.push(match item.action {
                Action::Update | Action::Delete => Fate::refused(
                    400,
                    "action_request_validation_exception",
                    format!("{} is not possible: tiered tables are append-only", item.action.name()),
                ),
                _ if item.conditional => Fate::refused(
                    400,
                    "action_request_validation_exception",
                    "documents have no versions: tiered tables are append-only",
                ),
                _ => {
                    let raw = &self.body[item.document.clone()];
                    match add(&mut parts[at], envelopes[at], item, raw, max_record) {
                        Ok(()) => Fate::Row(at),
                        Err((stage, reason)) => {
                            let raw = raw[..raw.len().min(max_record)].to_vec();
                            let fate = Fate::refused(400, PARSING, reason.clone());
                            parts[at].batch.rejected.push(Rejected { line: item.line, stage, reason, raw });
                            fate
                        }
                    }
                }
            });
        }
        Ok((self, parts, fates))
    }

    /// The answer, given what PostgreSQL refused of each part.
    fn answer(&self, parts: &[Part], fates: &[Fate], refused: &[Vec<Rejected>]) -> String {
        let lines: Vec<HashMap<u64, &Rejected>> =
            refused.iter().map(|part| part.iter().map(|r| (r.line, r)).collect()).collect();
        let request = uuid::Uuid::new_v4().simple().to_string();
        let mut out = String::with_capacity(64 + self.items.len() * if self.short { 28 } else { 220 });
        let mut errors = false;
        for (at, (item, fate)) in self.items.iter().zip(fates).enumerate() {
            let late = match fate {
                Fate::Row(part) => lines[*part].get(&item.line),
                Fate::Refused { .. } => None,
            };
            let fate = match late {
                Some(rejected) => &Fate::refused(400, PARSING, rejected.reason.clone()),
                None => fate,
            };
            if at > 0 {
                out.push(',');
            }
            let name = item.action.name();
            let _ = write!(out, "{{\"{name}\":{{");
            if !self.short {
                let id = item.id.clone().unwrap_or_else(|| format!("{request}-{at}"));
                let _ = write!(out, "\"_index\":{},\"_id\":{},", json!(item.index), json!(id));
            }
            match fate {
                Fate::Row(_) if self.short => out.push_str("\"status\":201}}"),
                Fate::Row(_) => out.push_str(
                    "\"_version\":1,\"result\":\"created\",\"_shards\":{\"total\":1,\"successful\":1,\"failed\":0},\
                     \"_seq_no\":0,\"_primary_term\":1,\"status\":201}}",
                ),
                Fate::Refused { status, kind, reason } => {
                    errors = true;
                    let error = json!({ "type": kind, "reason": reason });
                    let _ = write!(out, "\"status\":{status},\"error\":{error}}}}}");
                }
            }
        }
        debug_assert_eq!(parts.len(), refused.len());
        let took = self.began.elapsed().as_millis();
        format!("{{\"took\":{took},\"errors\":{errors},\"items\":[{out}]}}")
    }
}

/// How Elasticsearch calls a document that is none of its index.
const PARSING: &str = "mapper_parsing_exception";

fn add(
    part: &mut Part,
    envelope: Envelope,
    item: &Item,
    raw: &[u8],
    max: usize,
) -> Result<(), (&'static str, String)> {
    if raw.len() > max {
        return Err((TOO_LARGE, format!("{} bytes, more than the bound of {max}", raw.len())));
    }
    if raw.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return Err(("decode", "not a JSON object".to_owned()));
    }
    let id = item.id.as_deref().filter(|_| {
        let mapper = &part.mapper;
        mapper.target().overflow.is_some() || mapper.target().columns.iter().any(|c| c.name == "_id")
    });
    if id.is_some_and(|id| id.contains('\0')) {
        return Err(("decode", "the _id holds a NUL character, which PostgreSQL cannot store".to_owned()));
    }
    let mut records = envelope::open(envelope, raw).map_err(|reason| ("decode", reason))?;
    while let Some(record) = records.next() {
        let mut record = record.map_err(|reason| ("decode", reason))?;
        if let Some(id) = id
            && !record.iter().any(|f| f.name == "_id")
        {
            record.push(Field { name: "_id".into(), value: Value::Text(id.into()) });
        }
        let raw = records.raw();
        part.mapper.map(&record, &mut part.batch, item.line, &raw).map_err(|reason| ("map", reason))?;
    }
    Ok(())
}
