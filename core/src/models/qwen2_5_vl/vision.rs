//! The vision part: patches of pictures to vectors in the language model's space.

use candle_core::{DType, Result, Tensor};

use super::block::{Block, VISION_NORM};
use super::config::VisionConfig;
use super::windows::Layout;
use crate::device::classify;
use crate::error::{self, Error};
use crate::kernels::activation::Activation;
use crate::nn::{Blocks, Keep, Linear, Norm, zeros};
use crate::weights::Scope;

/// The vision part of the network.
pub(crate) struct VisionTower {
    patches: Linear,
    blocks: Blocks<Block>,
    /// Before patches are merged.
    norm: Norm,
    merger: [Linear; 2],
    config: VisionConfig,
    dtype: DType,
}

impl VisionTower {
    /// Out of `root`, where all tensors of a checkpoint are.
    /// `keep` says which blocks stay in memory.
    pub(crate) fn load(config: &VisionConfig, root: &Scope, keep: Keep) -> error::Result<Self> {
        let scope = Self::scope(root);
        let for_blocks = config.clone();
        let block = move |_: usize, scope: &Scope| Block::of_vision(&for_blocks, scope);
        let (width, merged) = (config.hidden_size, config.merged() * config.hidden_size);
        let (side, frames) = (config.patch_size, config.temporal_patch_size);
        let weight = scope
            .at("patch_embed.proj")
            .get((width, config.in_channels, frames, side, side), "weight")?
            .flatten_from(1)
            .map_err(|e| classify(e, "cannot lay out a convolution"))?;
        let merger =
            |layer, n| Linear::load(&scope.at(format!("merger.mlp.{layer}")), merged, n, true);
        Ok(Self {
            patches: Linear::new(&weight, &zeros(&scope, width)?)?,
            blocks: Blocks::load(&scope.at("blocks"), config.depth, keep, block)?,
            norm: Norm::load(&scope.at("merger.ln_q"), width, VISION_NORM)?,
            merger: [
                merger(0, merged)?.then(Activation::GeluErf),
                merger(2, config.out_hidden_size)?,
            ],
            config: config.clone(),
            dtype: root.dtype(),
        })
    }

    /// Where the vision part's tensors are: checkpoints of transformers 5 have them in `model`.
    fn scope(root: &Scope) -> Scope {
        match root.has("model.visual.patch_embed.proj.weight") {
            true => root.at("model.visual"),
            false => root.at("visual"),
        }
    }

    /// The vectors of each picture, `(squares, out_hidden_size)`.
    ///
    /// `patches` `(n, values)` are those of all pictures behind each other, in the order in which they
    /// are merged; `grids` are rows and columns of patches of each. What a picture gives does not depend
    /// on the others.
    pub(crate) fn encode(
        &self,
        patches: &Tensor,
        grids: &[(usize, usize)],
    ) -> error::Result<Vec<Tensor>> {
        let expected = self.config.patch();
        if patches.rank() != 2 || patches.dims()[1] != expected {
            let found = patches.dims();
            return Err(Error::invalid_input(format!(
                "patches {found:?}, not of {expected} values"
            )));
        }
        let count = patches.dims()[0];
        let layout = Layout::new(grids, count, &self.config, patches.device())?;
        self.forward(patches, &layout).map_err(|e| classify(e, "cannot encode pictures"))
    }

    fn forward(&self, patches: &Tensor, layout: &Layout) -> Result<Vec<Tensor>> {
        let squares = layout.order.elem_count();
        let x = self.patches.forward(&patches.to_dtype(self.dtype)?)?;
        let x = x.reshape((squares, ()))?.index_select(&layout.order, 0)?;
        let mut x = x.reshape(((), self.config.hidden_size))?;
        self.blocks.for_each(|index, block| {
            let is_whole = self.config.fullatt_block_indexes.contains(&index);
            let runs = if is_whole { &layout.whole } else { &layout.windows };
            x = block.forward(&x, runs, None)?;
            Ok(())
        })?;
        let x = self.norm.forward(&x)?.reshape((squares, ()))?;
        let x = self.merger[1].forward(&self.merger[0].forward(&x)?)?;
        let x = x.index_select(&layout.places, 0)?;
        layout.pictures.iter().map(|squares| x.narrow(0, squares.start, squares.len())).collect()
    }
}
