//! Jobs: edits that outlive their connection.
//!
//! A job is accepted when its pictures are on the disk and its row is in the database; from then on it
//! is finished, failed or cancelled once, whatever happens to the server. Where a job is while it runs
//! is known in memory only.

pub mod files;
pub mod routes;
pub mod runner;
pub mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::engine::editing::{Leaver, Stage};
use crate::engine::lock;
use files::Files;
use store::Store;

/// A job that waits or runs.
pub(crate) struct Live {
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) leaver: Leaver,
    pub(crate) start_mills: AtomicI64,
    pub(crate) cancelled: watch::Sender<bool>,
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
    ) -> crate::error::ApiResult<T> {
        let store = Arc::clone(&self.store);
        let answer = tokio::task::spawn_blocking(move || work(&store)).await;
        let failed = |why: String| {
            tracing::error!("the database of jobs failed: {why}");
            crate::error::ApiError::internal("the database of jobs failed")
        };
        answer.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
    }
}
