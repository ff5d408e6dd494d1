//! Of what files a model consists, and whether a folder has all of them.
//!
//! A tagger is a few files of fixed names. An edit model is a pipeline as diffusers saves it: a
//! `model_index.json` that names it, and a folder for each of its parts. Repositories have more than
//! is needed, such as the same weights in other formats; names that are not exactly of these forms are
//! passed over, which is also what keeps every file inside its folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::Task;
use crate::error::{Error, Result};
use crate::weights::ModelDir;

/// What a tagger needs, in the two forms that it is published in.
const TAGGERS: &[&[&str]] = &[
    &["selected_tags.csv", "config.json", "model.safetensors"],
    &["selected_tags.csv", "model.onnx"],
];
/// Files of a tagger that are fetched when they are there.
#[cfg(feature = "hub")]
const EXTRAS: &[&str] = &["thresholds.csv", "preprocess.json"];

/// The file that names a pipeline.
pub(super) const PIPELINE: &str = "model_index.json";
/// The pipelines that edit pictures.
const EDITORS: &[&str] = &["QwenImageEditPipeline", "QwenImageEditPlusPipeline"];
/// The parts of such a pipeline that have weights, and what those are called.
const NETWORKS: &[(&str, &str)] = &[
    ("transformer", "diffusion_pytorch_model"),
    ("text_encoder", "model"),
    ("vae", "diffusion_pytorch_model"),
];
const SCHEDULER: &str = "scheduler/scheduler_config.json";
/// Where the tokenizer may be.
const TOKENIZERS: &[&str] = &["processor", "tokenizer"];
/// All folders of such a pipeline that are of use.
#[cfg(feature = "hub")]
const FOLDERS: &[&str] =
    &["scheduler", "tokenizer", "processor", "text_encoder", "vae", "transformer"];
/// How the names of small files end.
#[cfg(feature = "hub")]
const SMALL: &[&str] = &[".json", ".txt", ".jinja"];

/// Whether a folder has the whole of a model for `task`.
pub(super) fn is_complete(dir: &Path, task: Task) -> bool {
    let has = |name: &str| dir.join(name).is_file();
    match task {
        Task::Tag => TAGGERS.iter().any(|form| form.iter().all(|file| has(file))),
        Task::Edit => is_complete_pipeline(&ModelDir::Disk(dir.to_owned())),
    }
}

fn is_complete_pipeline(dir: &ModelDir) -> bool {
    let is_editor = dir.has(PIPELINE)
        && dir.text(PIPELINE).is_ok_and(|text| pipeline(&text).is_ok_and(|name| is_editor(&name)));
    let has_weights = |folder: &str, stem: &str| {
        let index = format!("{folder}/{stem}.safetensors.index.json");
        if !dir.has(&index) {
            return dir.has(&format!("{folder}/{stem}.safetensors"));
        }
        let shards = dir.text(&index).ok().and_then(|text| shards(&text));
        shards.is_some_and(|files| {
            files.iter().all(|file| is_plain(file) && dir.has(&format!("{folder}/{file}")))
        })
    };
    is_editor
        && dir.has(SCHEDULER)
        && has_tokenizer(|name| dir.has(name))
        && NETWORKS.iter().all(|(folder, stem)| {
            dir.has(&format!("{folder}/config.json")) && has_weights(folder, stem)
        })
}

/// The class of the pipeline that the text of a `model_index.json` names.
pub(super) fn pipeline(text: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Pipeline {
        #[serde(rename = "_class_name")]
        class: String,
    }
    let pipeline: Pipeline = serde_json::from_str(text)
        .map_err(|e| Error::model_invalid(format!("`{PIPELINE}` names no pipeline: {e}")))?;
    Ok(pipeline.class)
}

/// Whether a pipeline edits pictures.
pub(super) fn is_editor(class: &str) -> bool {
    EDITORS.contains(&class)
}

/// The files that the text of an index names.
fn shards(text: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_str(text).ok()?;
    let mut files: Vec<_> = index.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    (!files.is_empty()).then_some(files)
}

fn has_tokenizer(has: impl Fn(&str) -> bool) -> bool {
    TOKENIZERS.iter().any(|folder| {
        let has = |name: &str| has(&format!("{folder}/{name}"));
        has("tokenizer.json") || (has("vocab.json") && has("merges.txt"))
    })
}

/// Those of a repository's files that make up a tagger, its weights last; `None` if they do not.
#[cfg(feature = "hub")]
pub(super) fn tagger<'a>(names: &[&'a str]) -> Option<Vec<&'a str>> {
    let find = |name: &&str| names.iter().find(|other| *other == name).copied();
    let form: Vec<_> = TAGGERS.iter().find_map(|form| form.iter().map(find).collect())?;
    Some(EXTRAS.iter().filter_map(find).chain(form).collect())
}

/// Those of a repository's files that make up a pipeline, in the order in which they are fetched: the
/// file that names it comes last, so that a folder is not taken for whole while it is not. `None` if
/// they do not.
#[cfg(feature = "hub")]
pub(super) fn editor<'a>(names: &[&'a str]) -> Option<Vec<&'a str>> {
    let has = |name: &str| names.contains(&name);
    let (mut small, mut weights) = (Vec::new(), Vec::new());
    for name in names {
        let Some((folder, file)) = name.split_once('/') else { continue };
        if !FOLDERS.contains(&folder) || !is_plain(file) {
            continue;
        }
        let stem = NETWORKS.iter().find(|(network, _)| *network == folder).map(|(_, stem)| *stem);
        let index = stem.map(|stem| format!("{stem}.safetensors.index.json"));
        if SMALL.iter().any(|end| file.ends_with(end)) {
            // There are indices of other formats, and of weights in other precisions.
            if !file.contains(".index.") || index.as_deref() == Some(file) {
                small.push(*name);
            }
        } else if let (Some(stem), Some(index)) = (stem, index) {
            let is_sharded = has(&format!("{folder}/{index}"));
            if if is_sharded { is_shard(file, stem) } else { file == format!("{stem}.safetensors") }
            {
                weights.push(*name);
            }
        }
    }
    let has_network = |(folder, _): &(&str, &str)| {
        has(&format!("{folder}/config.json"))
            && weights.iter().any(|name| name.split('/').next() == Some(*folder))
    };
    let index = names.iter().find(|name| **name == PIPELINE)?;
    if !NETWORKS.iter().all(has_network) || !has(SCHEDULER) || !has_tokenizer(has) {
        return None;
    }
    small.extend(weights);
    small.push(*index);
    Some(small)
}

/// Whether a name is `stem-00001-of-00009.safetensors`.
#[cfg(feature = "hub")]
fn is_shard(file: &str, stem: &str) -> bool {
    let number = |text: &str| text.len() == 5 && text.bytes().all(|c| c.is_ascii_digit());
    file.strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".safetensors")?.split_once("-of-"))
        .is_some_and(|(one, all)| number(one) && number(all))
}

/// Whether a name can be nothing but that of a file in a folder.
fn is_plain(file: &str) -> bool {
    !file.starts_with('.')
        && file.len() <= 200
        && file.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}
