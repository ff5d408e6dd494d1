//! The windows of a SwinV2 block: cutting a grid into them, shifting, masks, relative positions.

use candle_core::{Device, Result, Tensor};

use crate::kernels::attention;

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

    /// Rows and columns of a window.
    pub(super) fn size(&self) -> (usize, usize) {
        self.size
    }

    fn is_shifted(&self) -> bool {
        self.shift != (0, 0)
    }

    /// The number of windows along each axis, with the padding that the last ones need.
    fn counts(&self) -> (usize, usize) {
        (self.grid.rows.div_ceil(self.size.0), self.grid.columns.div_ceil(self.size.1))
    }

    /// The tokens of each window, of a grid that was padded to whole windows. Shifting rolls the
    /// grid itself and leaves the padding where it is.
    pub(super) fn groups(&self, device: &Device) -> Result<attention::Windows> {
        let (down, across) = self.counts();
        let shape = (down * across, self.area());
        let width = across * self.size.1;
        let source = |position: usize, length: usize, shift: usize| match position < length {
            true => (position + shift) % length,
            false => position,
        };
        let (mut tokens, mut regions) = (Vec::new(), Vec::new());
        for window in 0..down * across {
            let (row, column) = (window / across, window % across);
            for y in row * self.size.0..(row + 1) * self.size.0 {
                let y = source(y, self.grid.rows, self.shift.0);
                for x in column * self.size.1..(column + 1) * self.size.1 {
                    let x = source(x, self.grid.columns, self.shift.1);
                    tokens.push((y * width + x) as u32);
                }
            }
            regions.extend(self.regions(row, column).map(|(y, x)| (3 * y + x) as f32));
        }
        let tokens = Tensor::from_vec(tokens, shape, device)?;
        let regions = match self.is_shifted() {
            true => Some(Tensor::from_vec(regions, shape, device)?),
            false => None,
        };
        attention::Windows::new(tokens, regions)
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
