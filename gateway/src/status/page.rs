//! The page itself: markup, style and script in one answer, and the policy that lets nothing else run. ✗ data.

use super::{Page, guard};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use std::sync::{Arc, LazyLock};

const MARKUP: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const CHARTS: &str = include_str!("page/charts.js");
const SCRIPT: &str = include_str!("page/page.js");

/// The page and its policy, made once.
static PAGE: LazyLock<(String, String)> = LazyLock::new(|| {
    let script = format!("\"use strict\";\n{CHARTS}\n{SCRIPT}");
    let digest = |text: &str| BASE64.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        digest(&script),
        digest(STYLE)
    );
    (MARKUP.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", &script), policy)
});

pub(super) async fn show(State(_): State<Arc<Page>>) -> Response {
    let (page, policy) = &*PAGE;
    let mut response = Html(page.as_str()).into_response();
    let headers = response.headers_mut();
    guard(headers);
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    );
    response
}

#[cfg(test)]
pub(super) fn parts() -> (&'static str, &'static str, [&'static str; 4]) {
    (&PAGE.0, &PAGE.1, [MARKUP, STYLE, CHARTS, SCRIPT])
}
