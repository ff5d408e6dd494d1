//! The engine: threads that own the models, and the queues in front of them.
//!
//! Handlers see [`TagQueue`](tagging::TagQueue) and [`Queue`](queue::Queue)s of edits and generations only.
//! Models are behind small traits, so that tests can count, slow down and break what the threads do.

pub mod editing;
pub mod generating;
mod leave;
pub mod models;
pub mod queue;
pub mod tagging;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use serde_json::{Value, json};

use crate::error::ApiError;

/// How a model is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is being loaded.
    Loading,
    /// It has worked: a forward pass was made.
    Ready(String),
    /// It cannot be used, and why.
    Failed(String),
}

/// The health of a model, written by its thread.
#[derive(Debug)]
pub struct HealthCell(RwLock<Health>);

impl Default for HealthCell {
    fn default() -> Self {
        Self(RwLock::new(Health::Loading))
    }
}

impl HealthCell {
    pub(crate) fn set(&self, health: Health) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// How it is now.
    pub fn get(&self) -> Health {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An error unless it is ready.
    pub fn check(&self) -> Result<(), ApiError> {
        match self.get() {
            Health::Ready(_) => Ok(()),
            Health::Loading => Err(ApiError::not_ready(None)),
            Health::Failed(why) => Err(ApiError::not_ready(Some(&why))),
        }
    }

    /// As the endpoints tell it.
    pub fn json(&self) -> Value {
        match self.get() {
            Health::Loading => json!({"status": "loading"}),
            Health::Ready(what) => json!({"status": "ready", "model": what}),
            Health::Failed(why) => json!({"status": "unavailable", "reason": why}),
        }
    }
}

/// Locks, whatever happened to another thread that held the lock: all that is kept under these locks
/// is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
