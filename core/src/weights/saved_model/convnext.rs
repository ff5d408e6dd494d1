//! Reads ConvNeXt and ConvNeXt V2: a chain of plain layers, told apart by their variables.

use serde_json::{Map, json};

use super::objects::Metadata;
use super::{Found, Reader, turned};
use crate::error::{Error, Result};

impl Reader<'_> {
    pub(super) fn convnext(&mut self, metadata: &Metadata) -> Result<Found> {
        let (patch, mut dim) = self.patches("stem.0", 3)?;
        self.norm("stem.1", dim)?;
        let (mut depths, mut dims) = (Vec::new(), Vec::new());
        let (mut response, mut scaled) = (false, false);
        loop {
            let stage = depths.len();
            let mut depth = 0;
            while self.has(0, "depthwise_kernel") {
                let name = format!("stages.{stage}.blocks.{depth}");
                let kernel = self.values("depthwise_kernel", &[7, 7, dim, 1])?;
                self.put(
                    format!("{name}.conv_dw.weight"),
                    &[dim, 1, 7, 7],
                    turned(&kernel, 49, dim),
                )?;
                let bias = self.values("bias", &[dim])?;
                self.put(format!("{name}.conv_dw.bias"), &[dim], bias)?;
                self.done(2)?;
                self.norm(&format!("{name}.norm"), dim)?;
                let hidden = self.linear(&format!("{name}.mlp.fc1"), dim)?;
                response = self.has(0, "gamma");
                if response {
                    for (variable, to) in [("gamma", "weight"), ("beta", "bias")] {
                        let values = self.values(variable, &[1, 1, 1, hidden])?;
                        self.put(format!("{name}.mlp.grn.{to}"), &[hidden], values)?;
                    }
                    self.done(2)?;
                }
                let outer = self.linear(&format!("{name}.mlp.fc2"), hidden)?;
                scaled = self.has(0, "skip");
                if scaled {
                    self.scale(format!("{name}.gamma"), dim)?;
                }
                if hidden != 4 * dim || outer != dim {
                    return Err(Error::unsupported("a ConvNeXt block of other sizes"));
                }
                depth += 1;
            }
            depths.push(depth);
            dims.push(dim);
            // A further stage starts with a norm and a convolution of 2 by 2.
            let more = self.has(1, "kernel") && self.has(2, "depthwise_kernel");
            if !more {
                break;
            }
            let name = format!("stages.{}.downsample", depths.len());
            self.norm(&format!("{name}.0"), dim)?;
            let (side, outer) = self.patches(&format!("{name}.1"), dim)?;
            if side != 2 {
                return Err(Error::unsupported(
                    "a stage of a ConvNeXt that does not halve its input",
                ));
            }
            dim = outer;
        }
        self.norm("head.norm", dim)?;
        let classes = self.linear("head.fc", dim)?;
        if depths.len() != 4 || response == scaled {
            return Err(Error::unsupported("a ConvNeXt of this form is not known"));
        }
        let mut arguments = Map::new();
        if depths != [3, 3, 27, 3] {
            arguments.insert("depths".into(), json!(depths));
        }
        if dims != [128, 256, 512, 1024] {
            arguments.insert("dims".into(), json!(dims));
        }
        if patch != 4 {
            arguments.insert("patch_size".into(), json!(patch));
        }
        if metadata.epsilon != 1e-6 {
            arguments.insert("norm_eps".into(), json!(metadata.epsilon));
        }
        let architecture = if response { "convnextv2_base" } else { "convnext_base" };
        Ok(Found { architecture, arguments, classes, features: dim, default_epsilon: None })
    }
}
