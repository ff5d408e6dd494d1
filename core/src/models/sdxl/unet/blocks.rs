//! The way down to small pictures of many channels, and back up with what was set aside on the way.

use candle_core::{Result, Tensor};

use super::super::layers::{ResnetBlock, conv, halving_around};
use super::attention::{Shared, Transformer};
use super::config::{StageConfig, UnetConfig};
use super::freeu::FreeU;
use super::prompt::Prompts;
use crate::error;
use crate::nn::{Conv2d, doubled};
use crate::weights::Scope;

/// What blocks need to know of a step beside what goes through them.
pub(super) struct Step<'a> {
    /// The activated embedding of the time and of all else, `(b, width)`.
    pub(super) time: Tensor,
    pub(super) prompts: Prompts<'a>,
    /// With the channels of the largest size.
    pub(super) freeu: Option<(FreeU, usize)>,
}

/// A residual block and maybe a transformer.
struct Block {
    resnet: ResnetBlock,
    transformer: Option<Transformer>,
}

impl Block {
    /// Block `i` of `scope`, from `c` channels to those of the stage.
    fn load(
        config: &UnetConfig,
        scope: &Scope,
        (i, c): (usize, usize),
        stage: &StageConfig,
        attends: bool,
        shared: &mut Shared,
    ) -> error::Result<Self> {
        let transformer =
            attends.then(|| Transformer::load(&scope.at("attentions").at(i), stage, shared));
        Ok(Self {
            resnet: resnet(config, scope, i, (c, stage.channels))?,
            transformer: transformer.transpose()?,
        })
    }

    fn forward(&self, x: Tensor, step: &Step<'_>) -> Result<Tensor> {
        let x = self.resnet.forward(x, Some(&step.time))?;
        match &self.transformer {
            Some(transformer) => transformer.forward(&x, &step.prompts),
            None => Ok(x),
        }
    }
}

fn resnet(
    config: &UnetConfig,
    scope: &Scope,
    i: usize,
    (c, n): (usize, usize),
) -> error::Result<ResnetBlock> {
    ResnetBlock::load(&scope.at("resnets").at(i), c, n, config.norm, Some(config.time_width()))
}

/// Blocks of one size on the way down, and the convolution to the next size.
pub(super) struct Down {
    blocks: Vec<Block>,
    halving: Option<Conv2d>,
}

impl Down {
    /// Stage `i` of the network.
    pub(super) fn load(
        config: &UnetConfig,
        root: &Scope,
        i: usize,
        shared: &mut Shared,
    ) -> error::Result<Self> {
        let scope = root.at("down_blocks").at(i);
        let stage = &config.stages[i];
        let before = config.stages[i.saturating_sub(1)].channels;
        let block = |j: usize| {
            let c = if j == 0 { before } else { stage.channels };
            Block::load(config, &scope, (j, c), stage, stage.attends_down, shared)
        };
        let halving = (i + 1 < config.stages.len())
            .then(|| halving_around(&scope.at("downsamplers.0.conv"), stage.channels));
        Ok(Self {
            blocks: (0..stage.blocks).map(block).collect::<error::Result<_>>()?,
            halving: halving.transpose()?,
        })
    }

    /// What comes out of every layer is added to `aside`.
    pub(super) fn forward(
        &self,
        mut x: Tensor,
        step: &Step<'_>,
        aside: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for block in &self.blocks {
            x = block.forward(x, step)?;
            aside.push(x.clone());
        }
        if let Some(halving) = &self.halving {
            x = halving.forward(&x, None)?;
            aside.push(x.clone());
        }
        Ok(x)
    }

    pub(super) fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        self.blocks.iter().filter_map(|block| block.transformer.as_ref())
    }
}

/// A transformer between two residual blocks, at the smallest size.
pub(super) struct Middle {
    before: Block,
    after: ResnetBlock,
}

impl Middle {
    pub(super) fn load(
        config: &UnetConfig,
        root: &Scope,
        shared: &mut Shared,
    ) -> error::Result<Self> {
        let scope = root.at("mid_block");
        let stage = &config.stages[config.stages.len() - 1];
        let c = stage.channels;
        Ok(Self {
            before: Block::load(config, &scope, (0, c), stage, true, shared)?,
            after: resnet(config, &scope, 1, (c, c))?,
        })
    }

    pub(super) fn forward(&self, x: Tensor, step: &Step<'_>) -> Result<Tensor> {
        self.after.forward(self.before.forward(x, step)?, Some(&step.time))
    }

    pub(super) fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        self.before.transformer.iter()
    }
}

/// Blocks of one size on the way up, each with one of the tensors that were set aside, and the
/// convolution behind which the next size is.
pub(super) struct Up {
    blocks: Vec<Block>,
    doubling: Option<Conv2d>,
}

impl Up {
    /// The mirror image of stage `i` of the way down.
    pub(super) fn load(
        config: &UnetConfig,
        root: &Scope,
        i: usize,
        shared: &mut Shared,
    ) -> error::Result<Self> {
        let stages = &config.stages;
        let scope = root.at("up_blocks").at(stages.len() - 1 - i);
        let stage = &stages[i];
        let below = stages[(i + 1).min(stages.len() - 1)].channels;
        let above = stages[i.saturating_sub(1)].channels;
        let block = |j: usize| {
            let c = if j == 0 { below } else { stage.channels };
            // The last one is what came from the larger size.
            let aside = if j == stage.blocks { above } else { stage.channels };
            Block::load(config, &scope, (j, c + aside), stage, stage.attends_up, shared)
        };
        Ok(Self {
            blocks: (0..=stage.blocks).map(block).collect::<error::Result<_>>()?,
            doubling: (i > 0)
                .then(|| conv(&scope.at("upsamplers.0.conv"), stage.channels, stage.channels))
                .transpose()?,
        })
    }

    /// Takes from the end of `aside`.
    pub(super) fn forward(
        &self,
        mut x: Tensor,
        step: &Step<'_>,
        aside: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for block in &self.blocks {
            let Some(kept) = aside.pop() else { candle_core::bail!("nothing was set aside") };
            let (below, kept) = match step.freeu {
                Some((freeu, first)) => freeu.apply(x, kept, first)?,
                None => (x, kept),
            };
            let joined = Tensor::cat(&[below, kept], 3)?;
            x = block.forward(joined, step)?;
        }
        let (Some(doubling), Some(next)) = (&self.doubling, aside.last()) else { return Ok(x) };
        // Sides that were odd before they were halved are odd again.
        let (_, h, w, _) = next.dims4()?;
        doubling.forward(&doubled(x)?.narrow(1, 0, h)?.narrow(2, 0, w)?, None)
    }

    pub(super) fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        self.blocks.iter().filter_map(|block| block.transformer.as_ref())
    }
}
