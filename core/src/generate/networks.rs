//! The networks that LoRA files change: read when they are needed, and again when their changes are others or when
//! they made room for others.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use super::parts::Part;
use super::prompt::encode::TextEncoders;
use super::refiner::Refiner;
use super::room::{self, Room};
use crate::device::Placement;
use crate::diffusion::memory::Bytes;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::models::clip::{ClipTextConfig, ClipTextModel};
use crate::models::sdxl::{InpaintHead, UNet, UnetConfig};
use crate::nn::Keep;
use crate::options::Lora;
use crate::tokens::clip::ClipTokenizer;
use crate::weights::{
    Network, Patch, Patched, PickleFile, Scope, Slot, Source, Weights, apply_loras,
    apply_loras_to_both,
};

/// A network that may be in memory, and how many of its layers stay there.
struct Place<N> {
    keep: Mutex<Keep>,
    network: Slot<N>,
}

impl<N> Default for Place<N> {
    fn default() -> Self {
        Self { keep: Mutex::new(Keep::All), network: Slot::default() }
    }
}

impl<N> Place<N> {
    /// Lets go of the network if it is not to be there, or with other layers.
    fn make_room(&self, keep: Option<Keep>) {
        let mut current = self.keep.lock().unwrap_or_else(PoisonError::into_inner);
        if keep != Some(*current) {
            self.network.release();
        }
        *current = keep.unwrap_or(*current);
    }

    fn release(&self) {
        self.network.release();
    }

    fn get(&self, load: impl FnOnce(Keep) -> Result<N>) -> Result<Arc<N>> {
        let keep = *self.keep.lock().unwrap_or_else(PoisonError::into_inner);
        self.network.get(|| load(keep))
    }
}

/// A network, and what it is read from.
pub(super) struct Changeable<C, N> {
    name: &'static str,
    kind: &'static Network,
    config: C,
    base: Arc<dyn Source>,
    /// The same with the LoRAs that are in use.
    source: RwLock<Arc<dyn Source>>,
    place: Place<N>,
}

impl<C, N> Changeable<C, N> {
    pub(super) fn new(name: &'static str, kind: &'static Network, part: Part<C>) -> Self {
        let Part { config, source: base } = part;
        let source = RwLock::new(Arc::clone(&base));
        Self { name, kind, config, base, source, place: Place::default() }
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
            self.place.release();
        }
    }

    /// The network, read if it is not there.
    pub(super) fn get(
        &self,
        placement: &Placement,
        load: impl FnOnce(&C, &Scope, Keep) -> Result<N>,
    ) -> Result<Arc<N>> {
        self.place.get(|keep| {
            let weights = self.weights(placement);
            network(&weights, self.name, keep, |scope| load(&self.config, scope, keep))
        })
    }

    /// Fails unless the network's tensors are all there and have the right shapes, which files tell at once.
    pub(super) fn check(
        &self,
        placement: &Placement,
        load: impl FnOnce(&C, &Scope, Keep) -> Result<N>,
    ) -> Result<()> {
        let weights = self.weights(placement).trial();
        let load = |scope: &Scope| load(&self.config, scope, Keep::All);
        network(&weights, self.name, Keep::All, load).map(drop)
    }

    fn weights(&self, placement: &Placement) -> Weights {
        let source = self.source.read().unwrap_or_else(PoisonError::into_inner);
        Weights::new(Arc::clone(&*source), placement.candle(), placement.dtype())
    }

    /// Lets go of the network unless it may be there, and with so many layers.
    pub(super) fn make_room(&self, keep: Option<Keep>) {
        self.place.make_room(keep);
    }

    /// What the network is made of.
    pub(super) fn part(&self) -> (&C, &dyn Source) {
        (&self.config, &*self.base)
    }
}

/// What makes parts of pictures anew better than the network alone: a patch of it, and a head before it.
struct Inpaint {
    files: [InUse; 2],
    head: Arc<InpaintHead>,
    patch: Arc<Patch>,
    place: Place<UNet>,
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
            inpaint.place.release();
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
        let inpaint = Inpaint { files, head: Arc::new(head), patch, place: Place::default() };
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

    /// The head of the inpaint engine, if there is one.
    pub(super) fn inpaint_head(&self) -> Option<Arc<InpaintHead>> {
        self.inpaint_in_use().map(|inpaint| Arc::clone(&inpaint.head))
    }

    /// The denoising network with the patch of the inpaint engine, read if it is not there; nothing where there is no
    /// engine.
    pub(super) fn patched(&self) -> Result<Option<Arc<UNet>>> {
        let Some(inpaint) = self.inpaint_in_use() else { return Ok(None) };
        let unet = inpaint.place.get(|keep| {
            let base = self.unet.source.read().unwrap_or_else(PoisonError::into_inner);
            let patched = Patched::new(Arc::clone(&*base), Arc::clone(&inpaint.patch));
            let placement = &self.placement;
            let weights = Weights::new(Arc::new(patched), placement.candle(), placement.dtype());
            network(&weights, "unet", keep, |scope| UNet::load(&self.unet.config, scope, keep))
        });
        unet.map(Some)
    }

    /// Lets go of networks that are not to be in memory now, or with other layers.
    pub(super) fn make_room(&self, room: &Room) {
        let [small, large] = room.texts.map_or([None; 2], |keep| keep.map(Some));
        let [unet, patched, _] = room.denoising.map_or([None; 3], |keep| keep.map(Some));
        self.small.make_room(small);
        self.large.make_room(large);
        self.unet.make_room(unet);
        if let Some(inpaint) = self.inpaint_in_use() {
            inpaint.place.make_room(patched);
        }
    }

    /// Bytes of the text encoders, the smaller one first, and of the denoising network.
    pub(super) fn bytes(&self) -> [Bytes; 3] {
        let text = |encoder: &Changeable<ClipTextConfig, ClipTextModel>| {
            room::bytes_of_text_encoder(encoder.part(), &self.placement)
        };
        let unet = room::bytes_of_unet(self.unet.part(), &self.placement);
        [text(&self.small), text(&self.large), unet]
    }

    /// Fails unless the files of all networks have what is needed.
    pub(super) fn check(&self) -> Result<()> {
        self.small.check(&self.placement, ClipTextModel::load)?;
        self.large.check(&self.placement, ClipTextModel::load)?;
        self.unet.check(&self.placement, UNet::load)
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
        Ok(TextEncoders {
            tokenizer: Arc::clone(&self.tokenizer),
            small: Some(self.small.get(&self.placement, ClipTextModel::load)?),
            large: self.large.get(&self.placement, ClipTextModel::load)?,
        })
    }

    /// The denoising network, read if it is not there.
    pub(super) fn unet(&self) -> Result<Arc<UNet>> {
        self.unet.get(&self.placement, UNet::load)
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::ModelNotFound, "there is no such file")
}

/// A network out of its tensors, of which none may be left over. If layers are read later it is not known now which are;
/// that all are there was checked before.
pub(super) fn network<T>(
    weights: &Weights,
    part: &'static str,
    keep: Keep,
    load: impl FnOnce(&Scope) -> Result<T>,
) -> Result<T> {
    let checked = |network| match keep {
        // Numbers from 0 on, which old files have.
        Keep::All => {
            weights.check_all_taken(|name| name.ends_with("position_ids")).map(|()| network)
        }
        Keep::First(_) => Ok(network),
    };
    load(&weights.root()).and_then(checked).context("part", part)
}

#[cfg(test)]
mod tests;
