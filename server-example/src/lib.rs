//! A small HTTP server over tagbrush: tags, edits and generates pictures.
//!
//! ```text
//! accept     connections: what heads of requests may take
//! slow       what bodies may take
//! guard      ids, key, origin, length: before anything is read
//! tagger     /tagger/v1/...                 handlers: parse, ask the engine, answer
//! edits      /v1/images/edits               both dialects into one description of an edit
//! generate   /v1/engine/..., /v1/engines/   pictures out of prompts
//! jobs       /tasks, /outputs, /inputs      work that outlives its connection, in SQLite
//! pages      /, /docs, /openapi.json, /health, /ready, /metrics, /v1/models
//! engine     one thread for each kind of model, queues, merging
//! ```
#![deny(unsafe_code)]
#![deny(missing_docs)]

mod accept;
mod base64url;
pub mod config;
pub mod edits;
pub mod engine;
pub mod error;
pub mod generate;
mod guard;
mod ids;
pub mod jobs;
mod openapi;
mod pages;
mod slow;
mod tagger;
mod webhook;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use config::Config;
use engine::editing::EditQueue;
use engine::generating::GenerateQueue;
use engine::models::Models;
use engine::tagging::TagQueue;
use jobs::Jobs;

/// Everything that handlers share. Cloning is cheap.
#[derive(Clone)]
pub struct App(Arc<Inner>);

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// What [`App`] shares.
pub struct Inner {
    /// The configuration.
    pub config: Config,
    /// Edits.
    pub edits: EditQueue,
    /// Pictures out of prompts.
    pub generator: GenerateQueue,
    /// Tags.
    pub tags: TagQueue,
    /// Work that outlives its connection.
    pub jobs: Jobs,
    key: Option<guard::Key>,
    metrics: PrometheusHandle,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl App {
    /// Starts the engine and takes up the jobs that an earlier server left. Needs a runtime.
    pub fn start(config: Config, models: Arc<dyn Models>) -> Result<Self, String> {
        let threads = |e| format!("cannot start a thread: {e}");
        let metrics = pages::metrics_recorder()?;
        let jobs = Jobs::open(&config)?;
        let (tags, tagger) =
            TagQueue::start(Arc::clone(&models), &config.bounds).map_err(threads)?;
        let bounds = &config.bounds;
        let (edits, editor) =
            EditQueue::start(Arc::clone(&models), bounds.edit_queue, bounds.edit_batch)
                .map_err(threads)?;
        let (generator, generating) =
            GenerateQueue::start(models, bounds.generate_queue, bounds.generate_batch)
                .map_err(threads)?;
        let key = config.api_key.as_deref().map(guard::Key::new);
        let threads = Mutex::new(vec![tagger, editor, generating]);
        let inner = Inner { config, edits, generator, tags, jobs, key, metrics, threads };
        let app = Self(Arc::new(inner));
        jobs::runner::resume(&app);
        Ok(app)
    }

    /// All routes.
    pub fn router(&self) -> Router {
        let text = NotForContentType::const_new("image/")
            .and(NotForContentType::const_new("text/event-stream"))
            .and(SizeAbove::new(1024));
        Router::new()
            .route("/", get(pages::page))
            .route("/assets/{file}", get(pages::asset))
            .route("/docs", get(pages::docs))
            .route("/openapi.json", get(openapi::document))
            .route("/health", get(pages::health))
            .route("/ready", get(pages::ready))
            .route("/metrics", get(pages::metrics))
            .route("/v1/models", get(pages::models))
            .route("/v1/images/edits", post(edits::edit))
            .route("/v1/engine/generate", post(generate::generate))
            .route("/v1/engine/generate/", post(generate::generate))
            .route("/v1/engine/control", post(generate::control::control))
            .route("/v1/engines/all-models", get(generate::control::all_models))
            .route("/v1/engines/styles", get(generate::control::styles))
            .route("/tagger/v1/interrogate", post(tagger::interrogate))
            .route("/tagger/v1/interrogate-batch", post(tagger::interrogate_batch))
            .route("/tagger/v1/interrogators", get(tagger::interrogators))
            .route("/tagger/v1/unload-interrogators", post(tagger::unload))
            .route("/tasks", get(jobs::routes::list).delete(jobs::routes::delete_range))
            .route("/tasks/{id}", get(jobs::routes::one).delete(jobs::routes::delete_one))
            .route("/tasks/{id}/cancel", post(jobs::routes::cancel))
            .route("/outputs/{date}/{file}", get(jobs::routes::output))
            .route("/inputs/{file}", get(jobs::routes::input))
            .fallback(pages::no_such_page)
            .method_not_allowed_fallback(pages::no_such_method)
            .layer(DefaultBodyLimit::max(self.config.bounds.body))
            .layer(CompressionLayer::new().compress_when(text))
            .layer(CatchPanicLayer::custom(pages::panicked))
            .layer(from_fn_with_state(self.clone(), guard::guard))
            .with_state(self.clone())
    }

    /// Lets running work end, for the configured time, and ends the threads. What waits is dropped:
    /// jobs stay in the database and are taken up by the next server.
    pub async fn stop(&self) {
        self.jobs.stop();
        self.edits.close();
        self.generator.close();
        self.tags.close();
        let threads = std::mem::take(&mut *engine::lock(&self.threads));
        let mut ended = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        if tokio::time::timeout(self.config.bounds.grace, &mut ended).await.is_err() {
            self.edits.cancel_running();
            self.generator.cancel_running();
            ended.await.ok();
        }
        self.jobs.settle().await;
        self.jobs.files.release();
    }
}

/// Serves until `stop` ends, then stops the engine.
pub async fn serve(
    listener: tokio::net::TcpListener,
    app: App,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopping, is_stopping) = tokio::sync::oneshot::channel();
    let head = app.config.bounds.head;
    let mut server = tokio::spawn(accept::connections(listener, app.router(), head, async move {
        stop.await;
        stopping.send(()).ok();
    }));
    let ended = tokio::select! {
        // Also when the sender is gone: then the server broke down, and says so below.
        _ = is_stopping => None,
        ended = &mut server => Some(ended),
    };
    // Also when no connection is open: jobs run without one.
    app.stop().await;
    let ended = match ended {
        Some(ended) => ended,
        // Every answer was given; a client that does not read its own is not waited for.
        None => match tokio::time::timeout(Duration::from_secs(5), &mut server).await {
            Ok(ended) => ended,
            Err(_) => {
                server.abort();
                return Ok(());
            }
        },
    };
    ended.map_err(std::io::Error::other)
}
