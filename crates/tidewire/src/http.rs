//! HTTP: `/` says what runs here, `/health` whether it takes work, `/metrics` how it does.
//!
//! `/health` is 503 until everything is recovered, and from the moment the server begins to stop, so that a load balancer
//! turns away in time.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tidewire_engine::Engine;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::process::ProcessUse;

/// What the pages are made of.
#[derive(Clone)]
pub struct Site {
    /// Whose status is shown; nothing while it recovers.
    pub engine: Arc<OnceLock<Arc<Engine>>>,
    /// Cancelled when the server begins to stop.
    pub stopping: CancellationToken,
    /// Where PostgreSQL clients connect, as the page says it.
    pub pg_address: std::net::SocketAddr,
}

/// Serves until `stopped` is cancelled.
pub async fn serve(listener: TcpListener, site: Site, stopped: CancellationToken) {
    let router = Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .route("/metrics", get(prometheus))
        .with_state(site);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned()).await {
        tracing::error!(%error, "HTTP ended");
    }
}

async fn index(State(site): State<Site>) -> Html<String> {
    let status = site.engine.get().map(|engine| engine.status()).unwrap_or_default();
    Html(format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Tidewire</title>\n<h1>Tidewire {version}</h1>\n\
         <p>A streaming SQL database. Connect with <code>psql -h {host} -p {port} -U tidewire tidewire</code></p>\n\
         <p>Epoch {epoch}; {n_sources} sources, {n_views} materialized views; {n_dead_letters} dead letters.</p>\n\
         <p><a href=\"/health\">/health</a> <a href=\"/metrics\">/metrics</a></p>\n</html>\n",
        version = env!("CARGO_PKG_VERSION"),
        host = site.pg_address.ip(),
        port = site.pg_address.port(),
        epoch = status.epoch.0,
        n_sources = status.sources.len(),
        n_views = status.views.len(),
        n_dead_letters = status.n_dead_letters,
    ))
}

async fn health(State(site): State<Site>) -> impl IntoResponse {
    let engine = site.engine.get();
    let (code, state) = match (site.stopping.is_cancelled(), engine) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, None) => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        (false, Some(_)) => (StatusCode::OK, "running"),
    };
    let epoch = engine.map_or(0, |engine| engine.status().epoch.0);
    let body = format!("{{\"status\":\"{state}\",\"epoch\":{epoch}}}\n");
    (code, [(header::CONTENT_TYPE, "application/json")], body)
}

async fn prometheus(State(site): State<Site>) -> impl IntoResponse {
    let status = site.engine.get().map(|engine| engine.status()).unwrap_or_default();
    let page = metrics::render(&status, ProcessUse::now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
}
