//! Reads SwinV2: blocks and patch mergings are layers of layers, and the size of the windows is
//! nowhere but in the tables of the computation.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, json};

use super::constants::{self, Constant};
use super::objects::Metadata;
use super::{Found, Reader};
use crate::error::{Error, Result, ResultExt};
use crate::weights::mapped::map;
use crate::weights::windows::{coordinates, mask};

/// A variable that only blocks of SwinV2 have.
pub(super) const MARK: &str = "attn/logit_scale";
/// The width of the network that computes position biases, which is the same in every SwinV2.
const POSITION_HIDDEN: usize = 512;
/// The largest window that is looked for.
const MAX_WINDOW: usize = 64;

impl Reader<'_> {
    pub(super) fn swin(&mut self, dir: &Path, metadata: &Metadata) -> Result<Found> {
        let (patch, dim) = self.patches("patch_embed.proj", 3)?;
        self.norm("patch_embed.norm", dim)?;
        let (mut depths, mut heads) = (Vec::new(), Vec::new());
        let mut width = dim;
        loop {
            let stage = depths.len();
            let (mut depth, mut stage_heads) = (0, None);
            while self.has(0, MARK) {
                let found = self.swin_block(&format!("layers.{stage}.blocks.{depth}"), width)?;
                if *stage_heads.get_or_insert(found) != found {
                    return Err(Error::unsupported("the blocks of a stage have different heads"));
                }
                depth += 1;
            }
            depths.push(depth);
            heads.push(stage_heads.unwrap_or(0));
            if !(self.has(0, "kernel") && self.has(0, "gamma")) {
                break;
            }
            let name = format!("layers.{}.downsample", depths.len());
            let outer = self.matrix("kernel", &format!("{name}.reduction"), 4 * width)?;
            self.inner_norm("", &format!("{name}.norm"), outer)?;
            self.done(3)?;
            if outer != 2 * width {
                return Err(Error::unsupported("patch merging of this form is not known"));
            }
            width = outer;
        }
        self.norm("norm", width)?;
        let classes = self.linear("head.fc", width)?;

        let computation = dir.join("saved_model.pb");
        let window = map(&computation)
            .and_then(|bytes| window(&bytes, metadata.size / patch.max(1), &depths))
            .context("file", computation.display())?;
        let mut arguments = Map::new();
        arguments.insert("window_size".into(), json!(window));
        if patch != 4 {
            arguments.insert("patch_size".into(), json!(patch));
        }
        if dim != 128 {
            arguments.insert("embed_dim".into(), json!(dim));
        }
        if depths != [2, 2, 18, 2] {
            arguments.insert("depths".into(), json!(depths));
        }
        if heads != [4, 8, 16, 32] {
            arguments.insert("num_heads".into(), json!(heads));
        }
        arguments.insert("img_size".into(), json!(metadata.size));
        Ok(Found {
            architecture: "swinv2_base_window8_256",
            arguments,
            classes,
            features: width,
            default_epsilon: Some(1e-5),
        })
    }

    /// A block; returns its heads.
    fn swin_block(&mut self, name: &str, width: usize) -> Result<usize> {
        let heads = self.dims(MARK)?.first().copied().unwrap_or(0);
        let scale = self.values(MARK, &[heads, 1, 1])?;
        self.put(format!("{name}.attn.logit_scale"), &[heads, 1, 1], scale)?;
        for bias in ["q_bias", "v_bias"] {
            let values = self.values(&format!("attn/{bias}"), &[width])?;
            self.put(format!("{name}.attn.{bias}"), &[width], values)?;
        }
        let outer = self.matrix("attn/qkv/kernel", &format!("{name}.attn.qkv"), width)?;
        self.inner_linear("attn/proj", &format!("{name}.attn.proj"), width, width)?;
        let [first, last] = self.position_layers()?;
        let mlp = format!("{name}.attn.cpb_mlp");
        self.inner_linear(&first, &format!("{mlp}.0"), 2, POSITION_HIDDEN)?;
        let biases =
            self.matrix(&format!("{last}/kernel"), &format!("{mlp}.2"), POSITION_HIDDEN)?;
        if outer != 3 * width || biases != heads {
            return Err(Error::unsupported("an attention of these sizes").with("block", name));
        }
        self.inner_norm("norm1/", &format!("{name}.norm1"), width)?;
        self.inner_linear("mlp/fc1", &format!("{name}.mlp.fc1"), width, 4 * width)?;
        self.inner_linear("mlp/fc2", &format!("{name}.mlp.fc2"), 4 * width, width)?;
        self.inner_norm("norm2/", &format!("{name}.norm2"), width)?;
        self.done(17)?;
        Ok(heads)
    }

    /// A dense layer in the next layer.
    fn inner_linear(&mut self, place: &str, name: &str, inner: usize, outer: usize) -> Result<()> {
        let bias = self.values(&format!("{place}/bias"), &[outer])?;
        self.put(format!("{name}.bias"), &[outer], bias)?;
        self.matrix(&format!("{place}/kernel"), name, inner)?;
        Ok(())
    }

    /// The places of the two dense layers that compute position biases: the one with a bias first.
    /// What lies between depends on whether Keras kept them in a list or in a model.
    fn position_layers(&self) -> Result<[String; 2]> {
        let layer = self.layer(MARK)?;
        let places: Vec<&str> = layer
            .variables
            .keys()
            .filter(|place| place.starts_with("attn/cpb_mlp/"))
            .filter_map(|place| place.strip_suffix("/kernel"))
            .collect();
        let is_first = |place: &str| layer.variables.contains_key(&format!("{place}/bias"));
        match places[..] {
            [first, last] if is_first(first) && !is_first(last) => {
                Ok([first.to_owned(), last.to_owned()])
            }
            _ => Err(Error::unsupported("position biases of this form are not known")
                .with("layer", &layer.name)),
        }
    }
}

/// The size of the windows of a network on a map of `side`, from the tables of its computation.
///
/// Each block has the relative coordinates of its windows, which are cut to the map where that is
/// smaller, and each shifted one a mask. All tables must be those of one size.
pub(super) fn window(bytes: &[u8], side: usize, depths: &[usize]) -> Result<usize> {
    let unknown = |what: &str| Err(Error::unsupported(format!("a SwinV2 {what} is not known")));
    let tables = constants::matching(bytes, |dims| window_of_table(dims).is_some())?;
    let mut windows = BTreeSet::new();
    for table in &tables {
        let window = window_of_table(&table.dims).unwrap_or(0);
        // Equal sizes have equal tables; what was trained with other windows has others.
        if !table.equals(coordinates(window)) {
            return unknown("whose positions are not spaced as usual");
        }
        windows.insert(window);
    }
    let Some(window) = windows.last().copied() else {
        return unknown("that does not record its windows in `saved_model.pb`");
    };
    let sides: Vec<usize> = (0..depths.len()).map(|stage| side >> stage).collect();
    let cut: BTreeSet<usize> = sides.iter().map(|side| window.min(*side)).collect();
    let divides = sides.iter().all(|side| side % window.min(*side).max(1) == 0);
    if windows != cut || !divides {
        return unknown(&format!("with windows of {windows:?} on maps of {sides:?}"));
    }

    let area = window * window;
    let shifted: Vec<usize> = sides
        .iter()
        .zip(depths)
        .filter(|(side, depth)| **side > window && **depth > 1)
        .map(|(side, _)| *side)
        .collect();
    let count = |side: usize| (side / window).pow(2);
    let masks = constants::matching(
        bytes,
        |dims| matches!(dims, [n, rows, columns] if [*rows, *columns] == [area, area] && *n > 0),
    )?;
    let is_mask = |constant: &&Constant<'_>, side: usize| {
        constant.dims[0] == count(side)
            && constant.equals((0..count(side)).flat_map(|w| mask(side, window, window / 2, w)))
    };
    for side in shifted {
        if !masks.iter().any(|constant| is_mask(&constant, side)) {
            return unknown(&format!("without masks of windows shifted by {}", window / 2));
        }
    }
    Ok(window)
}

/// The window whose relative coordinates have these dimensions.
fn window_of_table(dims: &[usize]) -> Option<usize> {
    match dims {
        [1, rows, columns, 2] if rows == columns && rows % 2 == 1 => {
            Some(rows.div_ceil(2)).filter(|window| (2..=MAX_WINDOW).contains(window))
        }
        _ => None,
    }
}
