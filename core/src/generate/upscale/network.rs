//! The network that makes pictures larger, on pictures of any size.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::super::room::bytes_in_f32;
use super::tiles::Tiling;
use crate::device::{Placement, classify};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::models::rrdb::RrdbNet;
use crate::weights::{Weights, open_upscaler};

/// Sides of tiles, and what neighbours share: those of Fooocus. Of the published network, 64 channels of what a tile
/// becomes are a gigabyte, of which two are there at once.
const TILE: usize = 512;
const OVERLAP: usize = 32;
/// Values of a pixel of what a tile becomes beside those: what is mixed and handed on.
const OF_PIXEL: u64 = 8;
/// Bytes of a pixel of what is made: of rows that tiles are mixed in, and of the whole before and after it is resampled.
const WHOLE: u64 = 24;
/// Most pixels of what the network makes: 400 megabytes.
const MAX_PIXELS: usize = 1 << 27;

/// A network that makes pictures larger.
pub(in crate::generate) struct Upscaler {
    network: RrdbNet,
    device: Device,
    /// Of its weights.
    bytes: u64,
}

impl Upscaler {
    /// Loads a file of ESRGAN's kind; see [`crate::LoadOptions::upscaler`].
    pub(in crate::generate) fn load(file: &Path, placement: &Placement) -> Result<Self> {
        let load = || {
            if !file.is_file() {
                return Err(Error::new(ErrorKind::ModelNotFound, "there is no such file"));
            }
            // Errors of 16 bits would be seen, and its cost is small beside that of denoising.
            let source = open_upscaler(file)?;
            let bytes = bytes_in_f32(&*source, placement);
            let weights = Weights::new(source, placement.candle(), DType::F32);
            let network = RrdbNet::load(&weights.root())?;
            weights.check_all_taken(|_| false)?;
            Ok(Self { network, device: placement.candle().clone(), bytes })
        };
        load().context("upscaler", file.display())
    }

    /// How many times pictures become larger.
    pub(in crate::generate) fn scale(&self) -> usize {
        self.network.scale()
    }

    /// Bytes of its weights.
    pub(in crate::generate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of values while it makes a picture of these sides larger: a tile, and the whole as bytes.
    pub(in crate::generate) fn bytes_of(&self, (width, height): (usize, usize)) -> u64 {
        let area = |width: usize, height: usize| {
            let scale = self.scale() as u64;
            (width as u64 * scale).saturating_mul(height as u64 * scale)
        };
        let tile = area(width.min(TILE), height.min(TILE));
        let whole = area(width, height);
        let values = 2 * self.network.features() as u64 + OF_PIXEL;
        (4 * values * tile).saturating_add(whole.saturating_mul(WHOLE))
    }

    /// RGB pixels that many times as large, with their width and height. `goes_on` is asked before each tile.
    ///
    /// # Errors
    /// [`ImageTooLarge`](ErrorKind::ImageTooLarge) for more than 134 million pixels, and those of `goes_on`.
    pub(in crate::generate) fn larger(
        &self,
        pixels: &[u8],
        (width, height): (usize, usize),
        goes_on: &dyn Fn() -> Result<()>,
    ) -> Result<(Vec<u8>, (usize, usize))> {
        let scale = self.scale();
        let size = (width * scale, height * scale);
        if size.0.checked_mul(size.1).is_none_or(|pixels| pixels > MAX_PIXELS) {
            let message = format!(
                "the picture would have {} x {} pixels after the upscaler; at most {MAX_PIXELS} in all",
                size.0, size.1
            );
            return Err(Error::new(ErrorKind::ImageTooLarge, message));
        }
        let tiling =
            Tiling { tile: (TILE, TILE), overlap: OVERLAP, scale: (scale, 1), channels: 3 };
        let mut made = Vec::with_capacity(size.0 * size.1 * 3);
        let mut is_number = true;
        tiling.run(
            (height, width),
            |rows, columns| {
                goes_on()?;
                let row =
                    |y: usize| &pixels[(y * width + columns.start) * 3..][..columns.len() * 3];
                let values = rows.clone().flat_map(row).map(|value| f32::from(*value) / 255.0);
                let values: Vec<f32> = values.collect();
                Tensor::from_vec(values, (1, rows.len(), columns.len(), 3), &self.device)
                    .and_then(|tile| self.network.forward(&tile)?.flatten_all()?.to_vec1::<f32>())
                    .map_err(|e| classify(e, "cannot make a picture larger"))
            },
            |rows| {
                is_number &= rows.iter().all(|value| !value.is_nan());
                let bytes = rows
                    .iter()
                    .map(|value| (value.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8);
                made.extend(bytes);
            },
        )?;
        match is_number {
            true => Ok((made, size)),
            false => {
                Err(Error::model_invalid("the upscaler answers with values that are no numbers"))
            }
        }
    }
}
