//! In which order the vision part sees the squares of pictures, and which of them see each other.
//!
//! A square is what becomes one vector; its patches are always beside each other. Most blocks attend in
//! windows of some squares a side, of which those at the right and lower edges of a picture may be
//! smaller. Windows of one size are put behind each other, so that each size is one call of the kernel,
//! and a picture is one for the blocks that attend to all of it.

use std::cmp::Reverse;
use std::ops::Range;

use candle_core::{Device, Tensor};

use super::block::Run;
use super::config::VisionConfig;
use super::rope::{self, Bands};
use crate::device::classify;
use crate::error::{Error, Result};
use crate::kernels::attention::{Options, Windows};
use crate::nn::SelfAttention;

/// The order of the squares of some pictures, and what attends to what.
pub(super) struct Layout {
    /// The square at each place, and the place of each square.
    pub(super) order: Tensor,
    pub(super) places: Tensor,
    /// The squares of each picture.
    pub(super) pictures: Vec<Range<usize>>,
    /// For blocks that attend in windows.
    pub(super) windows: Vec<Run>,
    /// For blocks that attend to whole pictures.
    pub(super) whole: Vec<Run>,
}

impl Layout {
    /// Of pictures of so many rows and columns of patches, `patches` in all.
    pub(super) fn new(
        grids: &[(usize, usize)],
        patches: usize,
        config: &VisionConfig,
        device: &Device,
    ) -> Result<Self> {
        let side = config.spatial_merge_size;
        let mut left = patches;
        for (index, (rows, columns)) in grids.iter().enumerate() {
            let count = rows.checked_mul(*columns).filter(|count| (1..=left).contains(count));
            let is_whole = rows.is_multiple_of(side) && columns.is_multiple_of(side);
            let Some(count) = count.filter(|_| is_whole) else {
                return Err(Error::invalid_input(format!(
                    "picture {index} has {rows} x {columns} patches, expected whole squares of \
                     {side} x {side} in the {patches} patches of all"
                )));
            };
            left -= count;
        }
        if left > 0 || patches > u32::MAX as usize || patches == 0 {
            return Err(Error::invalid_input(format!("{patches} patches for pictures {grids:?}")));
        }
        Self::of(grids, config, device).map_err(|e| classify(e, "cannot lay out pictures"))
    }

    fn of(
        grids: &[(usize, usize)],
        config: &VisionConfig,
        device: &Device,
    ) -> candle_core::Result<Self> {
        let (side, merged) = (config.spatial_merge_size, config.merged());
        let bands = Bands::of_vision(config);
        let options = |windows| Options {
            scale: SelfAttention::scale(config.hidden_size, config.num_heads),
            windows,
            ..Options::default()
        };
        let (mut order, mut pictures) = (Vec::new(), Vec::new());
        let (mut of_windows, mut whole) = (Vec::new(), Vec::new());
        for (rows, columns) in grids {
            let (rows, columns) = (rows / side, columns / side);
            let first = order.len();
            let windows = windows(rows, columns, config.window);
            order.extend(windows.iter().flatten().map(|square| (first + square) as u32));
            let positions: Vec<_> = windows
                .iter()
                .flatten()
                .flat_map(|square| {
                    let (row, column) = (square / columns * side, square % columns * side);
                    (0..merged).map(move |i| [row + i / side, column + i % side].map(|p| p as u32))
                })
                .collect();
            let rotation = bands.rotation(&positions, device)?;
            let mut start = 0;
            for equal in windows.chunk_by(|a, b| a.len() == b.len()) {
                let length = equal[0].len() * merged;
                let count = equal.len() * length;
                let tokens = Tensor::arange(0, count as u32, device)?;
                let tokens = tokens.reshape((equal.len(), length))?;
                of_windows.push(Run {
                    tokens: first * merged + start..first * merged + start + count,
                    options: options(Some(Windows::new(tokens, None)?)),
                    rotation: rope::part(&rotation, start, count)?,
                });
                start += count;
            }
            whole.push(Run {
                tokens: first * merged..order.len() * merged,
                options: options(None),
                rotation,
            });
            pictures.push(first..order.len());
        }
        let mut places = vec![0; order.len()];
        for (place, square) in order.iter().enumerate() {
            places[*square as usize] = place as u32;
        }
        Ok(Self {
            order: Tensor::new(order, device)?,
            places: Tensor::new(places, device)?,
            pictures,
            windows: of_windows,
            whole,
        })
    }
}

/// The squares of each window of a picture, large windows first.
fn windows(rows: usize, columns: usize, side: usize) -> Vec<Vec<usize>> {
    let parts = |count: usize| {
        (0..count).step_by(side).map(move |start| start..count.min(start.saturating_add(side)))
    };
    let mut windows: Vec<Vec<usize>> = Vec::new();
    for down in parts(rows) {
        for across in parts(columns) {
            let row = |row| across.clone().map(move |column| row * columns + column);
            windows.push(down.clone().flat_map(row).collect());
        }
    }
    windows.sort_by_key(|window| Reverse(window.len()));
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_a_picture_and_equal_ones_are_neighbours() {
        let sizes = |rows, columns| -> Vec<usize> {
            windows(rows, columns, 4).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(9, 5), [16, 16, 4, 4, 4, 1]);
        assert_eq!(sizes(8, 8), [16; 4]);
        assert_eq!(sizes(1, 3), [3]);
        assert_eq!(windows(3, 3, 2), [vec![0, 1, 3, 4], vec![2, 5], vec![6, 7], vec![8]]);
        let mut all = windows(9, 5, 4).concat();
        all.sort_unstable();
        assert_eq!(all, (0..45).collect::<Vec<_>>());
    }
}
