//! Pictures that are too large for a network at once, in tiles that overlap: what tiles make of the same place is
//! mixed, each with a weight that falls to its borders.
//!
//! Finished rows are handed on as soon as no later tile changes them, so that the whole is never there in `f32` unless
//! it is asked for. Places and weights are those of ComfyUI's `tiled_scale`.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// How a picture is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::generate) struct Tiling {
    /// Rows and columns of a tile.
    pub(in crate::generate) tile: (usize, usize),
    /// Rows and columns that neighbours share; less than a tile has.
    pub(in crate::generate) overlap: usize,
    /// How many times the sides become larger, and smaller. The smaller ones are divisors of all places of tiles.
    pub(in crate::generate) scale: (usize, usize),
    /// Values of a pixel of what is made.
    pub(in crate::generate) channels: usize,
}

impl Tiling {
    /// Whether a picture of so many rows and columns is one tile.
    pub(in crate::generate) fn is_whole(&self, (rows, columns): (usize, usize)) -> bool {
        rows <= self.tile.0 && columns <= self.tile.1
    }

    /// Calls `make` for all tiles of a picture of so many rows and columns; it gives the values of the tile's result,
    /// row by row. `emit` is given the mixed rows, from the first to the last.
    pub(in crate::generate) fn run(
        &self,
        (rows, columns): (usize, usize),
        mut make: impl FnMut(Range<usize>, Range<usize>) -> Result<Vec<f32>>,
        mut emit: impl FnMut(&[f32]),
    ) -> Result<()> {
        let to = |place: usize| place * self.scale.0 / self.scale.1;
        let (down, across) = (self.places(rows, self.tile.0), self.places(columns, self.tile.1));
        let (of_rows, of_columns) = (self.sums(&down, to(rows)), self.sums(&across, to(columns)));
        let width = to(columns) * self.channels;
        // Rows from `first` on, which later tiles may still change.
        let (mut band, mut first) = (Vec::new(), 0);
        for (i, rows) in down.iter().enumerate() {
            let (top, bottom) = (to(rows.start), to(rows.end));
            band.resize((bottom - first) * width, 0.0);
            let vertical = self.weights(bottom - top);
            for columns in &across {
                let (left, right) = (to(columns.start), to(columns.end));
                let made = make(rows.clone(), columns.clone())?;
                let row = (right - left) * self.channels;
                if made.len() != (bottom - top) * row {
                    let message = "a tile became a picture of another size";
                    return Err(Error::new(ErrorKind::Internal, message));
                }
                let horizontal = self.weights(right - left);
                let start = left * self.channels;
                for (y, (made, weight)) in made.chunks_exact(row).zip(&vertical).enumerate() {
                    let place = (top - first + y) * width + start;
                    let values = band[place..place + row].chunks_exact_mut(self.channels);
                    let made = made.chunks_exact(self.channels).zip(&horizontal);
                    for (values, (made, of_column)) in values.zip(made) {
                        let weight = weight * of_column;
                        values.iter_mut().zip(made).for_each(|(sum, value)| *sum += value * weight);
                    }
                }
            }
            let done = down.get(i + 1).map_or(bottom, |next| to(next.start));
            let finished = (done - first) * width;
            for (row, sum) in band[..finished].chunks_exact_mut(width).zip(&of_rows[first..done]) {
                for (values, of_column) in row.chunks_exact_mut(self.channels).zip(&of_columns) {
                    values.iter_mut().for_each(|value| *value /= sum * of_column);
                }
            }
            emit(&band[..finished]);
            band.drain(..finished);
            first = done;
        }
        Ok(())
    }

    /// Tiles along a side. One that would show nothing new is not there.
    fn places(&self, length: usize, tile: usize) -> Vec<Range<usize>> {
        let (mut places, mut start) = (Vec::new(), 0);
        loop {
            let end = (start + tile).min(length);
            places.push(start..end);
            if end == length {
                return places;
            }
            start += tile - self.overlap;
        }
    }

    /// The weights of a tile's result along a side.
    fn weights(&self, length: usize) -> Vec<f32> {
        let ramp = ((self.overlap * self.scale.0) as f32 / self.scale.1 as f32).round().max(1.0);
        let from = |border: usize| ((border + 1) as f32).min(ramp) / ramp;
        (0..length).map(|i| from(i) * from(length - 1 - i)).collect()
    }

    /// The sums of all weights along a side.
    fn sums(&self, places: &[Range<usize>], length: usize) -> Vec<f32> {
        let mut sums = vec![0.0; length];
        for place in places {
            let to = |place: usize| place * self.scale.0 / self.scale.1;
            let part = &mut sums[to(place.start)..to(place.end)];
            let weights = self.weights(part.len());
            part.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(
        tiling: &Tiling,
        size: (usize, usize),
        value: impl Fn(usize, usize) -> f32,
    ) -> Vec<f32> {
        let mut all = Vec::new();
        let (times, by) = tiling.scale;
        let make = |rows: Range<usize>, columns: Range<usize>| {
            let span = |range: &Range<usize>| range.start * times / by..range.end * times / by;
            let (rows, columns) = (span(&rows), span(&columns));
            Ok(rows
                .flat_map(|y| columns.clone().map(move |x| (y, x)))
                .map(|(y, x)| value(y, x))
                .collect())
        };
        tiling.run(size, make, |rows| all.extend_from_slice(rows)).unwrap();
        all
    }

    #[test]
    fn tiles_that_agree_give_what_they_agree_about() {
        for (size, tile, overlap, scale) in [
            ((10, 7), (4, 4), 1, (1, 1)),
            ((10, 7), (4, 16), 2, (4, 1)),
            ((1, 1), (4, 4), 1, (4, 1)),
            ((64, 40), (16, 24), 8, (1, 8)),
            ((9, 9), (3, 3), 2, (2, 1)),
        ] {
            let tiling = Tiling { tile, overlap, scale, channels: 1 };
            let found = made(&tiling, size, |y, x| (y * 100 + x) as f32);
            let (rows, columns) = (size.0 * scale.0 / scale.1, size.1 * scale.0 / scale.1);
            assert_eq!(found.len(), rows * columns);
            for (i, value) in found.iter().enumerate() {
                let expected = (i / columns * 100 + i % columns) as f32;
                assert!((value - expected).abs() < 1e-2, "{size:?} {i}: {value} for {expected}");
            }
        }
    }

    /// Two tiles of 4 that share 2: there the weights are 1/2 and 1, and the other way around.
    #[test]
    fn tiles_that_differ_are_mixed_by_their_distance_from_the_border() {
        let tiling = Tiling { tile: (1, 4), overlap: 2, scale: (1, 1), channels: 1 };
        let mut all = Vec::new();
        let make = |_: Range<usize>, columns: Range<usize>| {
            Ok(vec![if columns.start == 0 { 0.0 } else { 3.0 }; columns.len()])
        };
        tiling.run((1, 6), make, |rows| all.extend_from_slice(rows)).unwrap();
        let expected = [0.0, 0.0, 1.0, 2.0, 3.0, 3.0];
        assert!(all.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{all:?}");
        assert!(tiling.is_whole((1, 4)) && !tiling.is_whole((1, 5)));
        assert_eq!(tiling.places(4, 4).len(), 1);
        assert_eq!(tiling.places(5, 4), [0..4, 2..5]);
    }

    #[test]
    fn what_fails_or_is_of_another_size_is_an_error() {
        let tiling = Tiling { tile: (2, 2), overlap: 1, scale: (2, 1), channels: 3 };
        assert!(tiling.run((4, 4), |_, _| Ok(vec![0.0; 5]), |_| {}).is_err());
        let cancelled =
            |_: Range<usize>, _: Range<usize>| Err(Error::new(ErrorKind::Cancelled, "cancelled"));
        let error = tiling.run((4, 4), cancelled, |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}
