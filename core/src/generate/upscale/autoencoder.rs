//! The autoencoder on large pictures: in tiles, of three shapes, whose results are averaged, so that no border shows.

use candle_core::Tensor;

use super::tiles::Tiling;
use crate::control::Control;
use crate::device::classify;
use crate::error::Result;
use crate::models::sdxl::AutoencoderKl;

/// Sides of tiles in latents, on the way to latents and back, and what neighbours share.
const TILE: usize = 64;
const ENCODED: usize = 8;
const DECODED: usize = 16;

impl super::super::Model {
    /// Latents `(h, w, c)` of a picture `(1, 8 h, 8 w, 3)`, as the autoencoder gives them for all of it but for tiles.
    pub(in crate::generate) fn encode_tiled(
        &self,
        picture: &Tensor,
        scale: usize,
        control: &Control,
    ) -> Result<Tensor> {
        let channels = self.vae.latent_channels();
        let tile = |(rows, columns)| Tiling {
            tile: (rows * scale, columns * scale),
            overlap: ENCODED * scale,
            scale: (1, scale),
            channels,
        };
        averaged(picture, tile, control, |vae, x| vae.encode(x), &self.vae)
    }

    /// Values `(8 h, 8 w, 3)` of latents `(1, h, w, c)`, as [`encode_tiled`](Self::encode_tiled).
    pub(in crate::generate) fn decode_tiled(
        &self,
        latents: &Tensor,
        scale: usize,
        control: &Control,
    ) -> Result<Tensor> {
        let tile = |tile| Tiling { tile, overlap: DECODED, scale: (scale, 1), channels: 3 };
        averaged(latents, tile, control, |vae, x| vae.decode(x), &self.vae)
    }
}

/// What `make` gives for tiles of three shapes, on average.
fn averaged(
    x: &Tensor,
    tiling: impl Fn((usize, usize)) -> Tiling,
    control: &Control,
    make: impl Fn(&AutoencoderKl, &Tensor) -> candle_core::Result<Tensor>,
    vae: &AutoencoderKl,
) -> Result<Tensor> {
    let failed = |e| classify(e, "cannot take a picture through the autoencoder");
    let (_, rows, columns, _) = x.dims4().map_err(failed)?;
    let tilings = [(TILE, TILE), (TILE / 2, TILE * 2), (TILE * 2, TILE / 2)].map(tiling);
    let all_whole = tilings.iter().all(|tiling| tiling.is_whole((rows, columns)));
    // They would all be the same.
    let tilings = if all_whole { &tilings[..1] } else { &tilings[..] };
    let mut sum: Vec<f32> = Vec::new();
    for tiling in tilings {
        let mut place = 0;
        tiling.run(
            (rows, columns),
            |rows, columns| {
                control.check()?;
                x.narrow(1, rows.start, rows.len())
                    .and_then(|x| x.narrow(2, columns.start, columns.len())?.contiguous())
                    .and_then(|x| make(vae, &x)?.flatten_all()?.to_vec1::<f32>())
                    .map_err(failed)
            },
            |made| {
                sum.resize(sum.len().max(place + made.len()), 0.0);
                let values = sum[place..].iter_mut().zip(made);
                values.for_each(|(sum, value)| *sum += value / tilings.len() as f32);
                place += made.len();
            },
        )?;
    }
    let Tiling { scale: (times, by), channels, .. } = tilings[0];
    Tensor::from_vec(sum, (rows * times / by, columns * times / by, channels), x.device())
        .map_err(failed)
}
