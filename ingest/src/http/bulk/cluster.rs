//! What Elasticsearch's clients ask before and beside `_bulk`, answered as far as they need it to go on. Templates,
//! policies and pipelines are accepted and not kept: columns are the table's, and documents are stored as they come.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::super::Service;
use super::refused;

/// The version whose requests are understood: clients refuse to talk to one much older than they are.
const VERSION: &str = "8.19.0";

/// A name for what has none.
const UID: &str = "watershed0watershed0wa";

pub fn routes() -> Router<Arc<Service>> {
    let mut router = Router::new()
        .route("/", get(about))
        .route("/_license", get(license))
        .route("/_xpack", get(xpack))
        .route("/_cluster/health", get(health))
        .route("/_nodes", get(nodes))
        .route("/_nodes/http", get(nodes))
        .route("/_nodes/{which}/http", get(nodes))
        .route("/_refresh", any(refreshed))
        .route("/{index}/_refresh", any(refreshed))
        .route("/{index}", any(index));
    // Things that are put and then taken as there.
    for kind in [
        "/_index_template/{name}",
        "/_component_template/{name}",
        "/_template/{name}",
        "/_data_stream/{name}",
        "/_ilm/policy/{name}",
        "/_ingest/pipeline/{name}",
    ] {
        router = router.route(kind, any(resource));
    }
    router
}

async fn about() -> Json<Value> {
    Json(json!({
        "name": "watershed",
        "cluster_name": "watershed",
        "cluster_uuid": UID,
        "version": {
            "number": VERSION,
            "build_flavor": "default",
            "build_type": "tar",
            "build_hash": "0000000000000000000000000000000000000000",
            "build_date": "2025-01-01T00:00:00.000000000Z",
            "build_snapshot": false,
            "lucene_version": "9.12.2",
            "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0",
        },
        "tagline": "You Know, for Search",
    }))
}

async fn license() -> Json<Value> {
    Json(json!({ "license": {
        "status": "active",
        "uid": "00000000-0000-0000-0000-000000000000",
        "type": "basic",
        "mode": "basic",
        "issued_to": "watershed",
        "issuer": "watershed",
    }}))
}

async fn xpack() -> Json<Value> {
    let off = json!({ "available": false, "enabled": false });
    Json(json!({
        "build": { "hash": "0", "date": "2025-01-01T00:00:00.000Z" },
        "license": { "uid": "0", "type": "basic", "mode": "basic", "status": "active" },
        "features": { "ilm": off, "data_streams": off, "security": { "available": true, "enabled": true } },
    }))
}

/// Red while nothing can be stored.
async fn health(State(service): State<Arc<Service>>) -> Json<Value> {
    let works = service.full().is_none() && service.asks_postgres().await.is_ok();
    let (status, active) = if works { ("green", 1) } else { ("red", 0) };
    Json(json!({
        "cluster_name": "watershed",
        "status": status,
        "timed_out": false,
        "number_of_nodes": 1,
        "number_of_data_nodes": 1,
        "active_primary_shards": active,
        "active_shards": active,
        "relocating_shards": 0,
        "initializing_shards": 0,
        "unassigned_shards": 1 - active,
        "number_of_pending_tasks": 0,
        "active_shards_percent_as_number": 100 * active,
    }))
}

/// One node: where the asker already is.
async fn nodes(headers: HeaderMap) -> Json<Value> {
    let address = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("127.0.0.1:8432");
    Json(json!({
        "_nodes": { "total": 1, "successful": 1, "failed": 0 },
        "cluster_name": "watershed",
        "nodes": { UID: {
            "name": "watershed",
            "host": address,
            "version": VERSION,
            "build_flavor": "default",
            "roles": ["data", "ingest", "master"],
            "http": { "bound_address": [address], "publish_address": address },
        }},
    }))
}

/// Rows are visible when they are acknowledged.
async fn refreshed() -> Json<Value> {
    Json(json!({ "_shards": { "total": 1, "successful": 1, "failed": 0 } }))
}

async fn resource(method: Method, Path(name): Path<String>) -> Response {
    if method == Method::GET || method == Method::HEAD {
        let reason = format!("[{name}] is not there: it is accepted, and not kept");
        return refused(StatusCode::NOT_FOUND, "resource_not_found_exception", &reason);
    }
    Json(json!({ "acknowledged": true })).into_response()
}

/// An index is there if its table is.
async fn index(State(service): State<Arc<Service>>, method: Method, Path(index): Path<String>) -> Response {
    let found = async {
        let mut conn = service.pool.acquire().await?;
        service.table_of(&mut conn, &index).await
    };
    match found.await {
        Err(e) => service.refusal(e),
        Ok(None) => {
            let reason =
                format!("no such index [{index}]: neither a tiered table nor a pattern of http.indices");
            refused(StatusCode::NOT_FOUND, "index_not_found_exception", &reason)
        }
        Ok(Some(_)) if method == Method::DELETE => {
            refused(StatusCode::BAD_REQUEST, "illegal_argument_exception", "tables are dropped with SQL")
        }
        Ok(Some(_)) if method == Method::GET || method == Method::HEAD => {
            Json(json!({ index: { "aliases": {}, "mappings": {}, "settings": {} } })).into_response()
        }
        Ok(Some(_)) => {
            Json(json!({ "acknowledged": true, "shards_acknowledged": true, "index": index })).into_response()
        }
    }
}
