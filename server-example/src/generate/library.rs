//! The files that requests may name: models, LoRA files, styles, wildcards and presets, in folders laid out
//! as Fooocus has them. A name is looked up among what lies there, so none leads out of a folder.

use std::path::{Path, PathBuf};

use tagbrush::{Error, ErrorKind, Prompter, Result};

/// What stands for the model that is embedded.
pub(crate) const DEMO: &str = "demo";
/// The model that Fooocus takes unless another one is named.
pub(super) const DEFAULT_MODEL: &str = "juggernautXL_v8Rundiffusion.safetensors";
/// The LoRA file that Fooocus applies unless others are named, and how strongly.
pub(super) const DEFAULT_LORA: &str = "sd_xl_offset_example-lora_1.0.safetensors";
pub(super) const DEFAULT_LORA_WEIGHT: f64 = 0.1;
/// What models and LoRA files end in.
const ENDING: &str = "safetensors";
/// The network with which Fooocus makes pictures larger.
pub(super) const DEFAULT_UPSCALER: &str = "fooocus_upscaler_s409985e5.bin";
/// The head of all versions of the inpaint engine.
pub(super) const INPAINT_HEAD: &str = "fooocus_inpaint_head.pth";
/// Versions of it with their patches.
pub(super) const ENGINES: [(&str, &str); 3] = [
    ("v1", "inpaint.fooocus.patch"),
    ("v2.5", "inpaint_v25.fooocus.patch"),
    ("v2.6", "inpaint_v26.fooocus.patch"),
];
/// What such networks end in.
const UPSCALERS: [&str; 4] = ["safetensors", "bin", "pth", "pt"];
/// Folders below folders that are looked into.
const DEPTH: usize = 8;

/// The folders, each of which may be missing.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// The model that is taken unless another one is named.
    pub model: Option<String>,
    /// With `checkpoints`, `loras`, `vae`, `upscale_models` and `inpaint` in it.
    pub models: Option<PathBuf>,
    /// With files of styles.
    pub styles: Option<PathBuf>,
    /// With wildcards.
    pub wildcards: Option<PathBuf>,
    /// With presets.
    pub presets: Option<PathBuf>,
}

impl Library {
    /// The model that is taken unless another one is named: as configured, that of Fooocus, the first one
    /// that is there, or with nothing configured the demo model.
    pub(crate) fn default_model(&self) -> Result<String> {
        match (&self.model, &self.models) {
            (Some(model), _) => Ok(model.clone()),
            (None, None) => Ok(DEMO.to_owned()),
            (None, Some(folder)) => {
                let first = || self.model_names().into_iter().next();
                let found = self.model_file(DEFAULT_MODEL);
                let found = found.or_else(|| self.model_file(&first()?)).ok_or_else(|| {
                    let folder = folder.join("checkpoints");
                    let message = format!("there is no model in {}", folder.display());
                    Error::new(ErrorKind::ModelNotFound, message)
                });
                found.map(|file| file.display().to_string())
            }
        }
    }

    /// What requests call a model: its name in the folder, else the last part of where it is.
    pub(crate) fn name_of(&self, model: &str) -> String {
        let path = Path::new(model);
        let inside =
            self.folder("checkpoints").and_then(|dir| path.strip_prefix(dir).ok().map(slashed));
        let last = || path.file_name().map(|name| name.to_string_lossy().into_owned());
        inside.or_else(last).unwrap_or_else(|| model.to_owned())
    }

    /// Names of models, which may have folders in them.
    pub(super) fn model_names(&self) -> Vec<String> {
        self.folder("checkpoints").map(|folder| names(&folder)).unwrap_or_default()
    }

    /// Names of LoRA files.
    pub(super) fn lora_names(&self) -> Vec<String> {
        self.folder("loras").map(|folder| names(&folder)).unwrap_or_default()
    }

    /// A model by its name.
    pub(super) fn model_file(&self, name: &str) -> Option<PathBuf> {
        file(&self.folder("checkpoints")?, name)
    }

    /// Names of autoencoders.
    pub(super) fn vae_names(&self) -> Vec<String> {
        self.folder("vae").map(|folder| names(&folder)).unwrap_or_default()
    }

    /// An autoencoder by its name.
    pub(super) fn vae_file(&self, name: &str) -> Option<PathBuf> {
        file(&self.folder("vae")?, name)
    }

    /// A LoRA file by its name.
    pub(super) fn lora_file(&self, name: &str) -> Option<PathBuf> {
        file(&self.folder("loras")?, name)
    }

    /// Where LoRA files are.
    pub(super) fn lora_folders(&self) -> Vec<PathBuf> {
        self.folder("loras").into_iter().collect()
    }

    /// The network that makes pictures larger: that of Fooocus, or the first one that is there.
    pub(crate) fn upscaler(&self) -> Option<PathBuf> {
        let folder = self.folder("upscale_models")?;
        let names = names_of(&folder, &UPSCALERS);
        let published = names.iter().find(|name| *name == DEFAULT_UPSCALER);
        published.or(names.first()).map(|name| folder.join(name))
    }

    /// Head and patch of a version of the inpaint engine, if both are there.
    pub(super) fn inpaint_engine(&self, version: &str) -> Option<(PathBuf, PathBuf)> {
        let (_, patch) = ENGINES.iter().find(|(known, _)| *known == version)?;
        let folder = self.folder("inpaint")?;
        let files = (folder.join(INPAINT_HEAD), folder.join(patch));
        (files.0.is_file() && files.1.is_file()).then_some(files)
    }

    /// A preset's text by its name.
    pub(super) fn preset(&self, name: &str) -> Option<String> {
        let folder = self.presets.as_ref()?;
        let mut entries =
            std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let is_it = |path: &PathBuf| {
            path.file_stem().is_some_and(|stem| stem == name)
                && path.extension().is_some_and(|end| end == "json")
        };
        std::fs::read_to_string(entries.find(is_it)?).ok()
    }

    /// What makes requests of prompts.
    pub(crate) fn prompter(&self) -> Result<Prompter> {
        let mut prompter = Prompter::new();
        if let Some(folder) = &self.styles {
            prompter = prompter.styles(folder)?;
        }
        if let Some(folder) = &self.wildcards {
            prompter = prompter.wildcards(folder);
        }
        Ok(self.lora_folders().into_iter().fold(prompter, Prompter::loras))
    }

    fn folder(&self, of: &str) -> Option<PathBuf> {
        self.models.as_ref().map(|folder| folder.join(of))
    }
}

/// The files below a folder, by their way from there, in order.
fn names(folder: &Path) -> Vec<String> {
    names_of(folder, &[ENDING])
}

/// Files of these endings.
fn names_of(folder: &Path, endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    collect(folder, (folder, DEPTH), endings, &mut found);
    found.sort();
    found
}

fn collect(
    root: &Path,
    (folder, depth): (&Path, usize),
    endings: &[&str],
    found: &mut Vec<String>,
) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is = |end: &&str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(end));
        let is_one = endings.iter().any(is);
        if path.is_dir() && depth > 0 {
            collect(root, (&path, depth - 1), endings, found);
        } else if is_one && path.is_file() {
            found.extend(path.strip_prefix(root).ok().map(slashed));
        }
    }
}

/// The file of a name, if it is one of the folder's.
fn file(folder: &Path, name: &str) -> Option<PathBuf> {
    let name = name.replace('\\', "/");
    names(folder).contains(&name).then(|| folder.join(name))
}

fn slashed(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_folders() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in [
            "checkpoints/a.safetensors",
            "checkpoints/sub/b.safetensors",
            "loras/l.safetensors",
            "vae/v.safetensors",
        ] {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), "").unwrap();
        }
        std::fs::write(root.join("checkpoints/notes.txt"), "").unwrap();
        std::fs::write(root.join("secret.safetensors"), "").unwrap();
        let library = Library { models: Some(root.to_owned()), ..Library::default() };
        assert_eq!(library.model_names(), ["a.safetensors", "sub/b.safetensors"]);
        assert_eq!(library.lora_names(), ["l.safetensors"]);
        assert_eq!(library.vae_names(), ["v.safetensors"]);
        assert!(library.vae_file("v.safetensors").is_some());
        let found = library.model_file("sub\\b.safetensors").unwrap();
        assert_eq!(library.name_of(&found.display().to_string()), "sub/b.safetensors");
        let outside = root.join("secret.safetensors").display().to_string();
        for name in [
            "../secret.safetensors",
            "sub/../../secret.safetensors",
            "../loras/l.safetensors",
            "..\\secret.safetensors",
            &outside,
            "notes.txt",
            "sub",
            "",
        ] {
            assert!(
                library.model_file(name).is_none()
                    && library.lora_file(name).is_none()
                    && library.vae_file(name).is_none(),
                "{name}"
            );
        }
        let first = library.default_model().unwrap();
        assert!(first.ends_with("a.safetensors"), "{first}");
        assert_eq!(Library::default().default_model().unwrap(), DEMO);
        let empty = Library { models: Some(root.join("loras")), ..Library::default() };
        assert!(empty.default_model().unwrap_err().to_string().contains("checkpoints"));
    }

    #[test]
    fn the_published_upscaler_is_taken_before_others() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("upscale_models");
        std::fs::create_dir(&below).unwrap();
        let library = Library { models: Some(folder.path().to_owned()), ..Library::default() };
        assert_eq!((library.upscaler(), Library::default().upscaler()), (None, None));
        for name in ["put_models_here.txt", "a.pth", DEFAULT_UPSCALER] {
            std::fs::write(below.join(name), "").unwrap();
            let expected = if name.ends_with("txt") { None } else { Some(below.join(name)) };
            assert_eq!(library.upscaler(), expected);
        }
    }

    #[test]
    fn presets_are_found_by_their_names_only() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("presets")).unwrap();
        std::fs::write(folder.path().join("presets/anime.json"), "{}").unwrap();
        std::fs::write(folder.path().join("secret.json"), "{}").unwrap();
        let presets = Some(folder.path().join("presets"));
        let library = Library { presets, ..Library::default() };
        assert_eq!(library.preset("anime").as_deref(), Some("{}"));
        for name in ["../secret", "anime.json", "", "initial"] {
            assert!(library.preset(name).is_none(), "{name}");
        }
    }
}
