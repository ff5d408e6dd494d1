//! Jobs: work that outlives its connection, whatever makes its pictures.
//!
//! A job is accepted when its pictures are on the disk and its row is in the database; from then on it
//! is finished, failed or cancelled once, whatever happens to the server. Where a job is while it runs
//! is known in memory only.

pub mod files;
pub(crate) mod grid;
mod outputs;
pub mod routes;
pub mod runner;
pub mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::watch;
use tokio::task::JoinSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tagbrush::{Error, ImageFormat, MetadataScheme};

use crate::App;
use crate::config::Config;
use crate::engine::HealthCell;
use crate::engine::lock;
use crate::engine::queue::{Handle, Leaver, Stage};
use crate::error::{ApiError, ApiResult};
use files::Files;
use store::Store;

/// What a job is to do, as it is kept in the database and read again.
pub(crate) trait Spec: Serialize + DeserializeOwned + Send + 'static {
    /// What the database calls such jobs.
    const KIND: &'static str;

    /// Whether the model for it works.
    fn health(app: &App) -> &HealthCell;
    /// Puts it into its queue; one that was accepted before whatever the queue's length.
    fn push(&self, app: &App, pictures: Vec<Vec<u8>>, was_accepted: bool) -> ApiResult<Handle>;
    /// Pictures that it makes of so many.
    fn outputs(&self, pictures: usize) -> usize;
    /// The format of its pictures.
    fn format(&self) -> ApiResult<ImageFormat>;
    /// In which notation the files of its pictures say how they were made, if they do.
    fn metadata(&self) -> ApiResult<Option<MetadataScheme>> {
        Ok(None)
    }
    /// Whether a picture of all its pictures comes after them.
    fn has_grid(&self) -> bool {
        false
    }
    /// What an address for its end that cannot be taken says to its client.
    fn wrong_webhook(_url: &str, why: String) -> ApiError {
        ApiError::field("webhook_url", why)
    }
    /// What an error of the library about it says to its client.
    fn error(error: &Error) -> ApiError {
        ApiError::generation(error)
    }
    /// Where the pictures that it was given are kept, in the order in which it takes them.
    fn kept(&self) -> Vec<&str>;
    /// Notes where they are kept.
    fn keep(&mut self, names: Vec<String>);
    /// Whether previews are shown.
    fn has_previews(&self) -> bool {
        true
    }
    /// Whether a client waits for its end, without whom nobody wants it.
    fn is_attended(&self) -> bool {
        false
    }
}

/// A job that waits or runs.
pub(crate) struct Live {
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) leaver: Leaver,
    pub(crate) has_previews: bool,
    pub(crate) start_mills: AtomicI64,
    pub(crate) wish: watch::Sender<Wish>,
    /// Outputs that are written, or were skipped.
    pub(crate) done: watch::Sender<usize>,
    pub(crate) ended: watch::Sender<Option<Ended>>,
}

/// What is wanted of a job against its course.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Wish {
    /// Nothing.
    #[default]
    None,
    /// Its end, without what it made.
    Cancel,
    /// Its end, with what it made.
    Stop,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) status: &'static str,
    /// Paths of its pictures.
    pub(crate) paths: Vec<String>,
    pub(crate) error: Option<ApiError>,
}

/// All jobs.
pub struct Jobs {
    pub(crate) store: Arc<Store>,
    pub(crate) files: Files,
    live: Mutex<HashMap<String, Arc<Live>>>,
    tasks: Mutex<JoinSet<()>>,
    is_stopping: AtomicBool,
}

impl Jobs {
    /// Opens the database and the folders. The error is for the operator.
    pub fn open(config: &Config) -> Result<Self, String> {
        let files = Files::open(&config.outputs, &config.inputs)?;
        let store = Arc::new(Store::open(&config.outputs.join("db.sqlite3"))?);
        let (live, tasks) = (Mutex::default(), Mutex::default());
        Ok(Self { store, files, live, tasks, is_stopping: AtomicBool::new(false) })
    }

    /// Jobs that do not end from here on stay in the database as they are.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Waits until what jobs still write is written.
    pub(crate) async fn settle(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        while tasks.join_next().await.is_some() {}
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        // Those that ended are forgotten, so that the set does not grow.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    pub(crate) fn live(&self, id: &str) -> Option<Arc<Live>> {
        lock(&self.live).get(id).cloned()
    }

    pub(crate) fn add_live(&self, id: &str, live: Arc<Live>) {
        lock(&self.live).insert(id.to_owned(), live);
    }

    pub(crate) fn remove_live(&self, id: &str) {
        lock(&self.live).remove(id);
    }

    /// Works on the database, off the threads that answer everybody.
    pub(crate) async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> rusqlite::Result<T> + Send + 'static,
    ) -> ApiResult<T> {
        let store = Arc::clone(&self.store);
        let answer = tokio::task::spawn_blocking(move || work(&store)).await;
        let failed = |why: String| {
            tracing::error!("the database of jobs failed: {why}");
            ApiError::internal("the database of jobs failed")
        };
        answer.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
    }
}
