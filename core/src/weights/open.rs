//! Opens one file of weights, whatever form it has, as a part of a model.
//!
//! Folders say in configurations what their files are. Single files, as ComfyUI and the GGUF tools
//! publish them, have none: what they are is told by their first bytes and by the names in them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::Source;
use super::gguf::{self, GgufFile};
use super::mapped::not_readable;
use super::renamed::{Name, Renamed};
use super::safetensors::SafeTensorsFile;
use super::scaled::Scaled;
use super::wan;
use crate::error::{Error, Result};

/// What programs put before the names of a transformer that is a part of something larger.
const PREFIXES: [&str; 2] = ["model.diffusion_model.", "diffusion_model."];
/// A tensor that only says that reference pictures are modulated as at time 0.
const ZERO_COND_T: &str = "__index_timestep_zero__";
/// What GGUF files call the transformer.
const ARCHITECTURE: &str = "qwen_image";

/// In what a file has its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileFormat {
    SafeTensors,
    Gguf,
}

/// An open file.
pub(crate) struct Opened {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) format: FileFormat,
    /// What network a GGUF file says that it has.
    pub(crate) architecture: Option<String>,
    /// Whether the file has the marker of networks that modulate reference pictures as at time 0.
    /// Without it they may still do, if it is a GGUF file.
    pub(crate) zero_cond_t: bool,
}

impl Opened {
    /// How many blocks the transformer in the file has.
    pub(crate) fn blocks(&self) -> usize {
        let names = self.source.names();
        let number = |name: &str| -> Option<usize> {
            name.strip_prefix("transformer_blocks.")?.split('.').next()?.parse().ok()
        };
        names.iter().filter_map(|name| number(name)).collect::<BTreeSet<_>>().len()
    }

    fn renamed(mut self, rename: impl Fn(&str) -> Name) -> Result<Self> {
        self.source = Arc::new(Renamed::new(self.source, rename)?);
        Ok(self)
    }
}

/// Opens a file of weights as it is. Scales of weights are applied.
pub(crate) fn open(path: &Path) -> Result<Opened> {
    let mut start = [0; gguf::MAGIC.len()];
    let mut file = std::fs::File::open(path).map_err(|e| not_readable(path, e))?;
    // A shorter file is refused by its reader.
    if file.read_exact(&mut start).is_ok() && start == *gguf::MAGIC {
        let file = GgufFile::open(path)?;
        return Ok(Opened {
            architecture: file.text("general.architecture").map(str::to_owned),
            source: Arc::new(file),
            format: FileFormat::Gguf,
            zero_cond_t: false,
        });
    }
    Ok(Opened {
        source: Arc::new(Scaled::new(SafeTensorsFile::open(path)?)?),
        format: FileFormat::SafeTensors,
        architecture: None,
        zero_cond_t: false,
    })
}

/// Opens the transformer of an edit model: with the names of diffusers, of ComfyUI, or as GGUF.
pub(crate) fn open_transformer(path: &Path) -> Result<Opened> {
    let mut opened = open(path)?;
    if let Some(architecture) = opened.architecture.as_deref()
        && architecture != ARCHITECTURE
    {
        return Err(Error::unsupported(format!(
            "the GGUF file has a network `{architecture}`, expected `{ARCHITECTURE}`"
        ))
        .with("file", path.display()));
    }
    let names = opened.source.names();
    let prefix = PREFIXES.iter().find(|prefix| names.iter().any(|name| name.starts_with(**prefix)));
    let plain = |name: &str| -> Option<String> {
        prefix.and_then(|prefix| name.strip_prefix(*prefix)).map(str::to_owned)
    };
    opened.zero_cond_t =
        names.iter().any(|name| plain(name).as_deref().unwrap_or(name) == ZERO_COND_T);
    let opened = opened.renamed(|name| match plain(name) {
        _ if name == ZERO_COND_T => Name::Hidden,
        Some(name) if name == ZERO_COND_T => Name::Hidden,
        Some(name) => Name::Now(name),
        None => Name::Kept,
    })?;
    if opened.blocks() == 0 {
        return Err(is_no(path, "transformer of Qwen-Image", "transformer_blocks", &names));
    }
    Ok(opened)
}

/// Opens the autoencoder of an edit model: with the names of diffusers or of Wan.
pub(crate) fn open_vae(path: &Path) -> Result<Opened> {
    let opened = open(path)?;
    refuse_gguf(&opened, "autoencoder", path)?;
    let names = opened.source.names();
    if wan::is_wan(&names) {
        return opened.renamed(|name| wan::to_diffusers(name).map_or(Name::Kept, Name::Now));
    }
    if names.iter().any(|name| name.starts_with("decoder.up_blocks.")) {
        return Ok(opened);
    }
    Err(is_no(path, "autoencoder of Qwen-Image", "decoder.up_blocks", &names))
}

/// Opens the text encoder of an edit model, under whichever names it has.
pub(crate) fn open_text_encoder(path: &Path) -> Result<Opened> {
    let opened = open(path)?;
    refuse_gguf(&opened, "text encoder", path)?;
    Ok(opened)
}

fn refuse_gguf(opened: &Opened, part: &str, path: &Path) -> Result<()> {
    if opened.format != FileFormat::Gguf {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "in GGUF files only transformers are read; the {part} must be safetensors, maybe in fp8"
    ))
    .with("file", path.display()))
}

fn is_no(path: &Path, part: &str, sign: &str, names: &[String]) -> Error {
    let names: Vec<_> = names.iter().take(5).map(String::as_str).collect();
    Error::model_invalid(format!(
        "the file is no {part}: no tensor of it is in `{sign}`; it starts with {}",
        names.join(", ")
    ))
    .with("file", path.display())
}
