//! Where models lie on this machine: our own cache and the one of the hub's Python client.

use std::env;
use std::path::{Path, PathBuf};

use super::{ModelId, Task, forms};
use crate::error::{Error, Result};

/// The first place that has the whole model.
pub(super) fn find(id: &ModelId, task: Task, cache_dir: Option<&Path>) -> Option<PathBuf> {
    let own = own(id, cache_dir).ok();
    own.into_iter().chain(shared(id)).find(|dir| forms::is_complete(dir, task))
}

/// The places that were looked at, for error messages.
pub(super) fn searched(id: &ModelId, cache_dir: Option<&Path>) -> String {
    let own = own(id, cache_dir).ok();
    let shared = shared_root().map(|root| root.join(shared_name(id)));
    let places = own.into_iter().chain(shared).map(|path| path.display().to_string());
    places.collect::<Vec<_>>().join(", ")
}

/// The model's folder in our cache, whether it exists or not.
pub(super) fn own(id: &ModelId, cache_dir: Option<&Path>) -> Result<PathBuf> {
    let revision = id.revision.as_ref().map_or(String::new(), |revision| format!("@{revision}"));
    Ok(root(cache_dir)?.join(format!("{}--{}{revision}", id.owner, id.name)))
}

/// The root of our cache.
pub(super) fn root(cache_dir: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = cache_dir {
        return Ok(dir.to_owned());
    }
    if let Some(dir) = variable("TAGBRUSH_CACHE") {
        return Ok(dir);
    }
    let base = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
    };
    base.map(|base| base.join("tagbrush").join("models")).ok_or_else(|| {
        Error::invalid_input("there is no home folder for downloaded models; set TAGBRUSH_CACHE")
    })
}

/// The snapshots that the hub's Python client has of a model, the asked-for revision first.
fn shared(id: &ModelId) -> Vec<PathBuf> {
    let Some(dir) = shared_root().map(|root| root.join(shared_name(id))) else { return Vec::new() };
    let revision = id.revision.as_deref().unwrap_or("main");
    // A reference names the snapshot it stands for; anything else is the snapshot's own name.
    let commit = std::fs::read_to_string(dir.join("refs").join(revision));
    let commit = commit.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
    let is_plain = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric());
    if is_plain { vec![dir.join("snapshots").join(commit)] } else { Vec::new() }
}

fn shared_name(id: &ModelId) -> String {
    format!("models--{}--{}", id.owner, id.name)
}

fn shared_root() -> Option<PathBuf> {
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HF_HOME").map(|dir| dir.join("hub")))
        .or_else(|| home().map(|home| home.join(".cache/huggingface/hub")))
}

fn home() -> Option<PathBuf> {
    variable(if cfg!(windows) { "USERPROFILE" } else { "HOME" })
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
