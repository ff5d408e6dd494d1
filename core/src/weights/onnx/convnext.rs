//! Reads ConvNeXt and ConvNeXtV2.

use serde_json::{Map, json};

use super::expr::{ConstId, Id, Op, Over, Two};
use super::layout::{Kind, merged};
use super::probe::LayerNorm;
use super::reader::{Conv, Mlp, Reader};
use super::vit::set;
use super::{Head, Network};
use crate::error::{Error, Result};

struct Block {
    depthwise: Conv,
    norm: LayerNorm,
    mlp: Mlp,
    scale: Option<ConstId>,
}

/// A stage: the convolution that leads into it, with its norm, and its blocks.
struct Stage {
    conv: Conv,
    patch: usize,
    norm: LayerNorm,
    blocks: Vec<Block>,
}

impl Reader<'_, '_> {
    /// A ConvNeXt: `head(norm(mean(stages)))`.
    pub(super) fn convnext(&self, head: &Head) -> Option<Result<Network>> {
        let norm = self.norm(head.linear.x)?;
        let Op::Reduce { over: Over::Mean, x, along } = self.op(norm.x) else { return None };
        let grid = matches!(merged(along)[..], [row, column]
            if row.kind == Kind::Row && column.kind == Kind::Column);
        if !grid {
            return None;
        }
        let mut stages = Vec::new();
        let mut below = *x;
        let image = loop {
            let mut blocks = Vec::new();
            while let Some((next, block)) = self.convnext_block(below) {
                blocks.push(block);
                below = next;
            }
            blocks.reverse();
            // The stem has its norm behind the convolution, the other stages before it.
            if let Some(norm) = self.norm(below)
                && let Some((conv, patch)) = self.patches(norm.x)
            {
                let image = conv.x;
                stages.push(Stage { conv, patch, norm, blocks });
                break image;
            }
            let Some((conv, patch)) = self.patches(below) else {
                return self.miss(below, "a ConvNeXt block or a downsampling convolution");
            };
            let Some(norm) = self.norm(conv.x) else {
                return self.miss(conv.x, "the norm of a downsampling convolution");
            };
            below = norm.x;
            stages.push(Stage { conv, patch, norm, blocks });
        };
        stages.reverse();
        Some(self.put_convnext(head, &norm, &stages, image))
    }

    fn convnext_block(&self, x: Id) -> Option<(Id, Block)> {
        self.residual(x).into_iter().find_map(|(short, branch)| {
            let (scale, below) = match self.per_feature(branch, Two::Mul) {
                Some((scale, below)) => (Some(scale), below),
                None => (None, branch),
            };
            let mlp = self.mlp(below)?;
            let Some(norm) = self.norm(mlp.fc1.x) else {
                return self.miss(mlp.fc1.x, "the norm of a ConvNeXt block");
            };
            let depthwise = self.conv(norm.x)?;
            let dims = &self.arena().get(depthwise.weight).dims;
            let [outer, 1, height, width] = dims[..] else {
                return self.miss(norm.x, "a depthwise convolution");
            };
            let fits = depthwise.groups == outer
                && depthwise.stride == [1, 1]
                && [height, width] == [7, 7]
                && depthwise.pads == [3; 4];
            if !fits {
                return self.miss(norm.x, "a depthwise convolution of 7 by 7");
            }
            (depthwise.x == short).then_some((short, Block { depthwise, norm, mlp, scale }))
        })
    }

    fn put_convnext(
        &self,
        head: &Head,
        norm: &LayerNorm,
        stages: &[Stage],
        image: Id,
    ) -> Result<Network> {
        let mut network = Network::default();
        let scaling = self.image(image).ok_or_else(|| self.unknown())?;
        network.scaling = Some(scaling);
        let all = || stages.iter().flat_map(|stage| &stage.blocks);
        let scaled = all().any(|block| block.scale.is_some());
        let response = all().any(|block| block.mlp.response.is_some());
        if all().any(|b| b.scale.is_some() != scaled || b.mlp.response.is_some() != response) {
            return Err(Error::unsupported("the blocks of the ConvNeXt have different layers"));
        }
        let (mut depths, mut dims) = (Vec::new(), Vec::new());
        for (s, stage) in stages.iter().enumerate() {
            let dim = self.arena().get(stage.conv.weight).dims[0];
            if s == 0 {
                self.put_conv("stem.0", &stage.conv, scaling.flipped)?;
                self.put_norm("stem.1", &stage.norm)?;
            } else {
                if stage.patch != 2 {
                    return Err(Error::unsupported("a stage does not halve its input"));
                }
                self.put_norm(&format!("stages.{s}.downsample.0"), &stage.norm)?;
                self.put_conv(&format!("stages.{s}.downsample.1"), &stage.conv, false)?;
            }
            for (b, block) in stage.blocks.iter().enumerate() {
                let name = format!("stages.{s}.blocks.{b}");
                if block.mlp.fc1.outer != 4 * dim {
                    return Err(Error::unsupported(
                        "a block does not have four times its features",
                    ));
                }
                self.put_conv(&format!("{name}.conv_dw"), &block.depthwise, false)?;
                self.put_norm(&format!("{name}.norm"), &block.norm)?;
                self.put_linear(&format!("{name}.mlp.fc1"), &block.mlp.fc1)?;
                if let Some(response) = &block.mlp.response {
                    self.put_vector(format!("{name}.mlp.grn.weight"), response.gamma)?;
                    let bias = self.bias(response.beta, 4 * dim)?;
                    self.put(format!("{name}.mlp.grn.bias"), &[4 * dim], bias)?;
                }
                self.put_linear(&format!("{name}.mlp.fc2"), &block.mlp.fc2)?;
                if let Some(scale) = block.scale {
                    self.put_vector(format!("{name}.gamma"), scale)?;
                }
            }
            depths.push(stage.blocks.len());
            dims.push(dim);
        }
        self.put_norm("head.norm", norm)?;
        self.put_linear("head.fc", &head.linear)?;
        if stages.len() != 4 {
            return Err(Error::unsupported(format!(
                "a ConvNeXt of {} stages; four are known",
                stages.len()
            )));
        }
        network.architecture = if response { "convnextv2_base" } else { "convnext_base" }.into();
        let mut arguments = Map::new();
        if depths != [3, 3, 27, 3] {
            arguments.insert("depths".into(), json!(depths));
        }
        if dims != [128, 256, 512, 1024] {
            arguments.insert("dims".into(), json!(dims));
        }
        set(&mut arguments, "patch_size", stages[0].patch, 4);
        // ConvNeXt has a layer scale unless told otherwise, ConvNeXtV2 the other way round.
        match (response, scaled) {
            (false, false) => drop(arguments.insert("ls_init_value".into(), json!(null))),
            (true, true) => drop(arguments.insert("ls_init_value".into(), json!(1e-6))),
            _ => {}
        }
        let epsilon = self.epsilon()?;
        if epsilon != 1e-6 {
            arguments.insert("norm_eps".into(), json!(epsilon));
        }
        network.arguments = arguments;
        network.features = dims[3];
        network.default_epsilon = epsilon;
        network.sizes_itself = true;
        network.classes = head.linear.outer;
        Ok(network)
    }
}
