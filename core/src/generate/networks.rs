//! The networks that LoRA files change: read when they are needed, and again when their changes are others.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use candle_core::DType;

use super::parts::Part;
use super::prompt::encode::TextEncoders;
use super::refiner::Refiner;
use crate::device::Placement;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::models::clip::{ClipTextConfig, ClipTextModel};
use crate::models::sdxl::{InpaintHead, UNet, UnetConfig};
use crate::options::Lora;
use crate::tokens::clip::ClipTokenizer;
use crate::weights::{
    Network, Patch, Patched, PickleFile, Slot, Source, Weights, apply_loras, apply_loras_to_both,
};

/// A network, and what it is read from.
pub(super) struct Changeable<C, N> {
    name: &'static str,
    kind: &'static Network,
    config: C,
    base: Arc<dyn Source>,
    /// The same with the LoRAs that are in use.
    source: RwLock<Arc<dyn Source>>,
    network: Slot<N>,
}

impl<C, N> Changeable<C, N> {
    pub(super) fn new(name: &'static str, kind: &'static Network, part: Part<C>) -> Self {
        let Part { config, source: base } = part;
        let source = RwLock::new(Arc::clone(&base));
        Self { name, kind, config, base, source, network: Slot::default() }
    }

    /// What the network is without LoRAs, as they are applied to it.
    fn base(&self) -> (&'static Network, Arc<dyn Source>) {
        (self.kind, Arc::clone(&self.base))
    }

    /// Other tensors for the next time that the network is needed, unless nothing changes them and
    /// nothing did.
    fn set(&self, source: Arc<dyn Source>) {
        let mut current = self.source.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&*current, &source) {
            *current = source;
            self.network.release();
        }
    }

    pub(super) fn get(
        &self,
        placement: &Placement,
        load: impl FnOnce(&C, &Weights) -> Result<N>,
    ) -> Result<Arc<N>> {
        self.network.get(|| {
            let source = Arc::clone(&*self.source.read().unwrap_or_else(PoisonError::into_inner));
            network(&source, placement, placement.dtype(), self.name, |weights| {
                load(&self.config, weights)
            })
        })
    }
}

/// What makes parts of pictures anew better than the network alone: a patch of it, and a head before it.
struct Inpaint {
    files: [InUse; 2],
    head: Arc<InpaintHead>,
    patch: Arc<Patch>,
    network: Slot<UNet>,
}

/// What tells whether a LoRA is the one that is in use: its file may have been written anew.
#[derive(PartialEq)]
struct InUse {
    file: PathBuf,
    scale: f64,
    written: Option<(u64, SystemTime)>,
}

impl InUse {
    fn of(lora: &Lora) -> Self {
        let read = std::fs::metadata(&lora.file).ok();
        let written = read.and_then(|data| Some((data.len(), data.modified().ok()?)));
        Self { file: lora.file.clone(), scale: lora.scale, written }
    }
}

/// The text encoders and the denoising network.
pub(super) struct Networks {
    tokenizer: Arc<ClipTokenizer>,
    small: Changeable<ClipTextConfig, ClipTextModel>,
    large: Changeable<ClipTextConfig, ClipTextModel>,
    unet: Changeable<UnetConfig, UNet>,
    inpaint: RwLock<Option<Arc<Inpaint>>>,
    placement: Placement,
    in_use: Mutex<Vec<InUse>>,
}

impl Networks {
    pub(super) fn new(
        tokenizer: ClipTokenizer,
        small: Part<ClipTextConfig>,
        large: Part<ClipTextConfig>,
        unet: Part<UnetConfig>,
        placement: Placement,
    ) -> Self {
        Self {
            tokenizer: Arc::new(tokenizer),
            small: Changeable::new("text_encoder", &Network::TEXT_ENCODER, small),
            large: Changeable::new("text_encoder_2", &Network::TEXT_ENCODER_2, large),
            unet: Changeable::new("unet", &Network::UNET, unet),
            inpaint: RwLock::default(),
            placement,
            in_use: Mutex::default(),
        }
    }

    /// Applies LoRA files in place of those that were applied before, also to a refiner that they fit. `running`
    /// keeps pictures from being made meanwhile. Networks that these files do not concern, nor the last ones
    /// did, stay.
    pub(super) fn set_loras(
        &self,
        loras: &[Lora],
        refiner: Option<&Refiner>,
        running: &Mutex<()>,
    ) -> Result<()> {
        let wanted: Vec<InUse> = loras.iter().map(InUse::of).collect();
        if *self.in_use() == wanted {
            return Ok(());
        }
        let bases = [self.unet.base(), self.small.base(), self.large.base()];
        let files = loras.iter().map(|lora| (&*lora.file, lora.scale));
        let sources = match refiner {
            None => apply_loras(files, &bases)?,
            Some(refiner) => apply_loras_to_both(files, &bases, &refiner.network.base())?,
        };
        let _not_while_running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let [unet, small, large, rest @ ..] = &sources[..] {
            self.unet.set(Arc::clone(unet));
            self.small.set(Arc::clone(small));
            self.large.set(Arc::clone(large));
            if let (Some(refiner), [refined]) = (refiner, rest) {
                refiner.network.set(Arc::clone(refined));
            }
        }
        // It is made of the first one with its files.
        if let Some(inpaint) = self.inpaint_in_use() {
            inpaint.network.release();
        }
        // Never waited for by who makes pictures: those ask for it while they run.
        *self.in_use() = wanted;
        Ok(())
    }

    /// Takes an inpaint engine, by the files of its head and its patch, in place of the one before, or none.
    pub(super) fn set_inpaint(
        &self,
        files: Option<(&Path, &Path)>,
        running: &Mutex<()>,
    ) -> Result<()> {
        let Some((head, patch)) = files else {
            let _not_while_running = running.lock().unwrap_or_else(PoisonError::into_inner);
            *self.inpaint.write().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(());
        };
        let files = [head, patch].map(|file| InUse::of(&Lora::new(file)));
        if self.inpaint_in_use().is_some_and(|inpaint| inpaint.files == files) {
            return Ok(());
        }
        let head = self.head(head).context("inpaint_head", head.display())?;
        let opened = match patch.is_file() {
            true => Patch::open(patch, &*self.unet.base),
            false => Err(missing()),
        };
        let patch = Arc::new(opened.context("inpaint_patch", patch.display())?);
        let inpaint = Inpaint { files, head: Arc::new(head), patch, network: Slot::default() };
        let _not_while_running = running.lock().unwrap_or_else(PoisonError::into_inner);
        *self.inpaint.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(inpaint));
        Ok(())
    }

    fn head(&self, file: &Path) -> Result<InpaintHead> {
        if !file.is_file() {
            return Err(missing());
        }
        let source = Arc::new(PickleFile::open(file)?);
        let weights = Weights::new(source, self.placement.candle(), self.placement.dtype());
        let config = &self.unet.config;
        let head =
            InpaintHead::load(&weights.root(), config.stages[0].channels, config.in_channels)?;
        weights.check_all_taken(|_| false).map(|()| head)
    }

    fn inpaint_in_use(&self) -> Option<Arc<Inpaint>> {
        self.inpaint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is an inpaint engine.
    pub(super) fn has_inpaint(&self) -> bool {
        self.inpaint_in_use().is_some()
    }

    /// The denoising network with the patch of the inpaint engine, read if it is not there, and its head; nothing where
    /// there is no engine.
    pub(super) fn inpaint(&self) -> Result<Option<(Arc<UNet>, Arc<InpaintHead>)>> {
        let Some(inpaint) = self.inpaint_in_use() else { return Ok(None) };
        let unet = inpaint.network.get(|| {
            let base = self.unet.source.read().unwrap_or_else(PoisonError::into_inner);
            let patched = Patched::new(Arc::clone(&*base), Arc::clone(&inpaint.patch));
            let source: Arc<dyn Source> = Arc::new(patched);
            network(&source, &self.placement, self.placement.dtype(), "unet", |weights| {
                UNet::load(&self.unet.config, &weights.root())
            })
        })?;
        Ok(Some((unet, Arc::clone(&inpaint.head))))
    }

    fn in_use(&self) -> MutexGuard<'_, Vec<InUse>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The LoRA files that are in use, but for those whose scale is 0.
    pub(super) fn loras(&self) -> Vec<Lora> {
        let in_use = self.in_use();
        let in_use = in_use.iter().filter(|lora| lora.scale != 0.0);
        in_use.map(|lora| Lora::new(&lora.file).scale(lora.scale)).collect()
    }

    /// The text encoders, read if they are not there.
    pub(super) fn texts(&self) -> Result<TextEncoders> {
        let get = |encoder: &Changeable<ClipTextConfig, ClipTextModel>| {
            encoder.get(&self.placement, |config, weights| {
                ClipTextModel::load(config, &weights.root())
            })
        };
        Ok(TextEncoders {
            tokenizer: Arc::clone(&self.tokenizer),
            small: Some(get(&self.small)?),
            large: get(&self.large)?,
        })
    }

    /// The denoising network, read if it is not there.
    pub(super) fn unet(&self) -> Result<Arc<UNet>> {
        self.unet.get(&self.placement, |config, weights| UNet::load(config, &weights.root()))
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::ModelNotFound, "there is no such file")
}

/// A network out of its tensors, of which none may be left over.
pub(super) fn network<T>(
    source: &Arc<dyn Source>,
    placement: &Placement,
    dtype: DType,
    part: &'static str,
    load: impl FnOnce(&Weights) -> Result<T>,
) -> Result<T> {
    let weights = Weights::new(Arc::clone(source), placement.candle(), dtype);
    let checked = |network| {
        // Numbers from 0 on, which old files have.
        weights.check_all_taken(|name| name.ends_with("position_ids")).map(|()| network)
    };
    load(&weights).and_then(checked).context("part", part)
}

#[cfg(test)]
mod tests;
