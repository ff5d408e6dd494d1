//! The windows of a SwinV2 block: cutting a grid into them, shifting, masks, relative positions.

use candle_core::{Device, Result, Tensor};

/// What separates positions that became neighbours only by the cyclic shift.
const MASKED: f32 = -100.0;

/// The size of a feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Grid {
    /// The grid after joining 2 x 2 pixels; odd sizes are padded.
    pub(super) fn halved(self) -> Self {
        Self { rows: self.rows.div_ceil(2), columns: self.columns.div_ceil(2) }
    }
}

/// How a block cuts its grid.
pub(super) struct Windows {
    grid: Grid,
    size: (usize, usize),
    shift: (usize, usize),
}

impl Windows {
    /// Windows of `size`, shifted by half of it in every second block. An axis that fits into one
    /// window is one window, and not shifted, unless `always` asks for the nominal size.
    pub(super) fn new(grid: Grid, size: (usize, usize), shifted: bool, always: bool) -> Self {
        let axis = |length: usize, size: usize| {
            let shift = if shifted { size / 2 } else { 0 };
            if always || length > size { (size, shift) } else { (length, 0) }
        };
        let (rows, row_shift) = axis(grid.rows, size.0);
        let (columns, column_shift) = axis(grid.columns, size.1);
        Self { grid, size: (rows, columns), shift: (row_shift, column_shift) }
    }

    /// Positions in one window.
    pub(super) fn area(&self) -> usize {
        self.size.0 * self.size.1
    }

    /// The number of windows.
    pub(super) fn count(&self) -> usize {
        let (down, across) = self.counts();
        down * across
    }

    fn is_shifted(&self) -> bool {
        self.shift != (0, 0)
    }

    /// The number of windows along each axis, with the padding that the last ones need.
    fn counts(&self) -> (usize, usize) {
        (self.grid.rows.div_ceil(self.size.0), self.grid.columns.div_ceil(self.size.1))
    }

    /// Applies `f` to the windows `(b windows, area, c)` of `x` `(b, h, w, c)` and puts the grid
    /// together again.
    pub(super) fn each(
        &self,
        x: &Tensor,
        f: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let (rows, columns) = self.size;
        let (down, across) = self.counts();
        let shift = (self.shift.0 as i32, self.shift.1 as i32);
        let x = match self.is_shifted() {
            true => x.roll(-shift.0, 1)?.roll(-shift.1, 2)?,
            false => x.clone(),
        };
        let windows = pad_to_multiple(&x, self.size)?
            .reshape((b, down, rows, across, columns, c))?
            .permute([0, 1, 3, 2, 4, 5])?
            .reshape((b * down * across, rows * columns, c))?;
        let x = f(&windows)?
            .reshape((b, down, across, rows, columns, c))?
            .permute([0, 1, 3, 2, 4, 5])?
            .reshape((b, down * rows, across * columns, c))?;
        let x = x.narrow(1, 0, h)?.narrow(2, 0, w)?.contiguous()?;
        match self.is_shifted() {
            true => x.roll(shift.0, 1)?.roll(shift.1, 2),
            false => Ok(x),
        }
    }

    /// The position bias `(heads, n, n)` with the mask of each window added: `(windows, heads, n, n)`,
    /// or one table for all windows when nothing is shifted.
    pub(super) fn with_mask(&self, bias: &Tensor) -> Result<Tensor> {
        let bias = bias.unsqueeze(0)?;
        if !self.is_shifted() {
            return Ok(bias);
        }
        let (down, across) = self.counts();
        let area = self.area();
        let mut mask = Vec::with_capacity(down * across * area * area);
        for row in 0..down {
            for column in 0..across {
                let regions: Vec<_> = self.regions(row, column).collect();
                for a in &regions {
                    mask.extend(regions.iter().map(|b| if a == b { 0.0 } else { MASKED }));
                }
            }
        }
        let mask = Tensor::from_vec(mask, (down * across, 1, area, area), &Device::Cpu)?
            .to_dtype(bias.dtype())?
            .to_device(bias.device())?;
        mask.broadcast_add(&bias)
    }

    /// For every position of a window, which contiguous part of the unshifted grid it belongs to.
    fn regions(&self, row: usize, column: usize) -> impl Iterator<Item = (usize, usize)> {
        let (down, across) = self.counts();
        let region = |position: usize, length: usize, size: usize, shift: usize| {
            if shift == 0 || position < length - size {
                0
            } else if position < length - shift {
                1
            } else {
                2
            }
        };
        let (size, shift) = (self.size, self.shift);
        let (height, width) = (down * size.0, across * size.1);
        (0..size.0).flat_map(move |y| {
            (0..size.1).map(move |x| {
                let y = region(row * size.0 + y, height, size.0, shift.0);
                (y, region(column * size.1 + x, width, size.1, shift.1))
            })
        })
    }

    /// Log-spaced relative coordinates `((2 rows - 1)(2 columns - 1), 2)`, and for every pair of
    /// positions of a window which of them it has `(area area)`. `trained` is the window size the
    /// model was trained with, 0 for this one.
    pub(super) fn relative_positions(&self, trained: usize) -> Result<(Tensor, Tensor)> {
        let (rows, columns) = self.size;
        let axis = |size: usize| -> Vec<f32> {
            let range = if trained > 0 { trained } else { size };
            let range = range.saturating_sub(1).max(1) as f32;
            (0..2 * size - 1)
                .map(|i| {
                    let x = (i as f32 - (size - 1) as f32) / range * 8.0;
                    x.signum() * (x.abs() + 1.0).log2() / 3.0 * f32::from(x != 0.0)
                })
                .collect()
        };
        let (ys, xs) = (axis(rows), axis(columns));
        let mut coordinates = Vec::with_capacity(2 * ys.len() * xs.len());
        for y in &ys {
            coordinates.extend(xs.iter().flat_map(|x| [*y, *x]));
        }
        let positions = || (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x)));
        let index: Vec<u32> = positions()
            .flat_map(|(ay, ax)| {
                positions().map(move |(by, bx)| {
                    let (y, x) = (ay + rows - 1 - by, ax + columns - 1 - bx);
                    (y * (2 * columns - 1) + x) as u32
                })
            })
            .collect();
        Ok((
            Tensor::from_vec(coordinates, (ys.len() * xs.len(), 2), &Device::Cpu)?,
            Tensor::new(index, &Device::Cpu)?,
        ))
    }
}

/// `(b, h, w, c)` with zeros added at the bottom and right up to multiples of `size`.
pub(super) fn pad_to_multiple(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    let (down, right) = (h.next_multiple_of(size.0) - h, w.next_multiple_of(size.1) - w);
    let x = if down > 0 { x.pad_with_zeros(1, 0, down)? } else { x.clone() };
    if right > 0 { x.pad_with_zeros(2, 0, right) } else { Ok(x) }
}
