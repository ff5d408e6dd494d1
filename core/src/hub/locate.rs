//! From what a user calls a model to the folder that it is in.

use std::path::Path;

use super::{Task, find_known, find_or_pull, forms};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::ModelDir;

/// The files of a model that are compiled in: pairs of a name and its bytes.
pub(crate) type Embedded = &'static [(&'static str, &'static [u8])];

/// What the demo models are called.
pub(crate) const DEMO: &str = "demo";

/// The folder of a demo model.
pub(crate) fn embedded(demo: Option<Embedded>) -> Result<ModelDir> {
    demo.map(ModelDir::Embedded).ok_or_else(|| {
        Error::new(ErrorKind::ModelNotFound, "this build does not contain the demo model")
    })
}

/// The folder of `model` for `task`: the embedded one if it is called `demo`, a folder, or the id or
/// alias of a published model, which is looked for in the local caches and then downloaded unless
/// `offline`.
pub(crate) fn locate(
    model: &str,
    task: Task,
    demo: Option<Embedded>,
    cache_dir: Option<&Path>,
    offline: bool,
) -> Result<ModelDir> {
    if model == DEMO {
        return embedded(demo);
    }
    let path = Path::new(model);
    if path.is_dir() {
        let dir = ModelDir::Disk(path.to_owned());
        return check_task(&dir, task).map(|()| dir);
    }
    if path.is_file() {
        return beside(path, task);
    }
    let known = find_known(model);
    if let Some(known) = known
        && known.task != task
    {
        return Err(is_other(known.task, task).with("model", model));
    }
    if let Some(reason) = known.and_then(|known| known.unsupported) {
        return Err(Error::unsupported(reason).with("model", model));
    }
    let id = known.map_or(model, |known| known.id);
    let looks_like_id = id.split('/').count() == 2 && !id.starts_with(['.', '/', '~']);
    if !looks_like_id {
        return Err(Error::new(
            ErrorKind::ModelNotFound,
            format!("there is no model `{model}`: no such folder, and no known name"),
        ));
    }
    find_or_pull(id, task, cache_dir, offline).map(ModelDir::Disk)
}

/// The folder of a file: a path to the weights of a tagger means the tagger.
fn beside(path: &Path, task: Task) -> Result<ModelDir> {
    let weights = matches!(path.extension(), Some(e) if e == "safetensors" || e == "onnx");
    match (task, path.parent()) {
        (Task::Tag, Some(parent)) if weights => Ok(ModelDir::Disk(parent.to_owned())),
        _ => {
            let files = match task {
                Task::Tag => "config.json, model.safetensors and selected_tags.csv",
                Task::Edit => "model_index.json, and a folder for each of its networks",
            };
            Err(Error::invalid_input(format!(
                "`{}` is a file, but a model is a folder with {files}",
                path.display()
            ))
            .with("field", "model"))
        }
    }
}

/// Fails if a folder has a model for another task. One that has neither is reported in detail by what
/// loads it.
fn check_task(dir: &ModelDir, task: Task) -> Result<()> {
    let (is_tagger, is_pipeline) = (dir.has("selected_tags.csv"), dir.has(forms::PIPELINE));
    match (task, is_tagger, is_pipeline) {
        (Task::Edit, true, false) => Err(is_other(Task::Tag, task).with("model", dir.origin(""))),
        (Task::Tag, false, true) => {
            let class = forms::pipeline(&dir.text(forms::PIPELINE)?)?;
            if forms::is_editor(&class) {
                return Err(is_other(Task::Edit, task).with("model", dir.origin("")));
            }
            Err(Error::unsupported(format!("the model is a `{class}`, not {}", task.model()))
                .with("model", dir.origin("")))
        }
        _ => Ok(()),
    }
}

/// The error of a model for `found` where one for `wanted` is needed.
pub(super) fn is_other(found: Task, wanted: Task) -> Error {
    Error::unsupported(format!("the model is {}, not {}", found.model(), wanted.model()))
}
