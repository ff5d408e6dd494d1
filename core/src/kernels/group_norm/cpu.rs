//! Group normalisation on the CPU: two passes of sums and one that writes, each over some rows for
//! every task. Sums of a task are taken for every channel; those of all tasks are joined in `f64`, in
//! their order, so that the result does not depend on threads.

use std::ops::Range;

use rayon::prelude::*;

use super::super::activation::{Activation, cpu::apply_to};
use super::super::cpu::{Isa, Kernel, Simd, Sink, Values, run};
use super::super::host;

/// One call: `activation(norm(x + shift))`.
pub(super) struct Call<'a> {
    /// Rows of the weight's length, those of an entry behind each other.
    pub(super) x: Values<'a>,
    /// How many entries there are.
    pub(super) entries: usize,
    /// A row for each entry.
    pub(super) shift: Option<&'a [f32]>,
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) groups: usize,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    /// Room for as many values as `x`.
    pub(super) out: Sink,
}

impl Call<'_> {
    /// Computes all entries on all threads.
    pub(super) fn run(&self, isa: Isa) {
        let channels = self.weight.len();
        if self.x.len() == 0 {
            return;
        }
        assert!(self.bias.len() == channels && self.out.len() == self.x.len());
        assert!(self.x.len().is_multiple_of(self.entries * channels));
        assert!(self.shift.is_none_or(|shift| shift.len() == self.entries * channels));
        let rows = self.x.len() / channels / self.entries;
        let each = host::rows_per_task(rows, channels);
        let tasks = |entry: usize| {
            let start = entry * rows;
            (0..rows.div_ceil(each))
                .map(move |task| start + task * each..start + rows.min((task + 1) * each))
        };
        for entry in 0..self.entries {
            let tasks: Vec<Range<usize>> = tasks(entry).collect();
            let count = (rows * channels / self.groups) as f64;
            // What is taken from the values of each channel; the shift is added by taking less.
            let mut mean = vec![0f32; channels];
            self.unshift(entry, &mut mean);
            let sums = self.sums(isa, &tasks, &mean, false);
            let means: Vec<f64> = self.joined(&sums).map(|sum| sum / count).collect();
            self.spread(&mut mean, |group| means[group] as f32);
            self.unshift(entry, &mut mean);
            let squares = self.sums(isa, &tasks, &mean, true);
            let scales: Vec<f64> = self
                .joined(&squares)
                .map(|squares| 1.0 / (squares / count + self.eps).sqrt())
                .collect();
            let mut scale = vec![0f32; channels];
            self.spread(&mut scale, |group| scales[group] as f32);
            for (scale, weight) in scale.iter_mut().zip(self.weight) {
                *scale *= weight;
            }
            tasks.into_par_iter().for_each(|rows| {
                run(isa, Write { call: self, rows, mean: &mean, scale: &scale });
            });
        }
    }

    /// Sums of each channel over the rows of every task: of values less `mean`, or of their squares.
    fn sums(&self, isa: Isa, tasks: &[Range<usize>], mean: &[f32], squared: bool) -> Vec<Vec<f32>> {
        let sum =
            |rows: &Range<usize>| run(isa, Sums { call: self, rows: rows.clone(), mean, squared });
        tasks.par_iter().map(sum).collect()
    }

    /// The sum of each group.
    fn joined(&self, sums: &[Vec<f32>]) -> impl Iterator<Item = f64> {
        let each = self.weight.len() / self.groups;
        (0..self.groups).map(move |group| {
            let channels = group * each..(group + 1) * each;
            sums.iter().flat_map(|sums| &sums[channels.clone()]).map(|sum| f64::from(*sum)).sum()
        })
    }

    /// Takes the shift of an entry from what is taken from its values.
    fn unshift(&self, entry: usize, mean: &mut [f32]) {
        let Some(shift) = self.shift else { return };
        let shift = &shift[entry * mean.len()..][..mean.len()];
        mean.iter_mut().zip(shift).for_each(|(mean, shift)| *mean -= shift);
    }

    /// Gives each channel what its group has.
    fn spread(&self, channels: &mut [f32], of: impl Fn(usize) -> f32) {
        let each = self.weight.len() / self.groups;
        for (i, channel) in channels.iter_mut().enumerate() {
            *channel = of(i / each);
        }
    }
}

struct Sums<'a> {
    call: &'a Call<'a>,
    rows: Range<usize>,
    mean: &'a [f32],
    squared: bool,
}

impl Kernel for Sums<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Vec<f32> {
        let channels = self.mean.len();
        let padded = channels.next_multiple_of(S::LANES);
        let mut buffer = vec![0f32; 3 * padded];
        let (row, rest) = buffer.split_at_mut(padded);
        let (mean, sums) = rest.split_at_mut(padded);
        mean[..channels].copy_from_slice(self.mean);
        for index in self.rows {
            // SAFETY: rows below the number of rows; all buffers hold one in whole vectors, with zeros
            // behind its end.
            unsafe {
                self.call.x.read::<S>(index * channels, channels, row.as_mut_ptr());
                for at in (0..padded).step_by(S::LANES) {
                    let v = S::sub(S::load(row.as_ptr().add(at)), S::load(mean.as_ptr().add(at)));
                    let sum = S::load(sums.as_ptr().add(at));
                    let sum = if self.squared { S::mul_add(v, v, sum) } else { S::add(v, sum) };
                    S::store(sums.as_mut_ptr().add(at), sum);
                }
            }
        }
        sums[..channels].to_vec()
    }
}

struct Write<'a> {
    call: &'a Call<'a>,
    rows: Range<usize>,
    mean: &'a [f32],
    /// Times the weight.
    scale: &'a [f32],
}

impl Kernel for Write<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.mean.len();
        let padded = channels.next_multiple_of(S::LANES);
        let mut buffer = vec![0f32; 4 * padded];
        let (row, rest) = buffer.split_at_mut(padded);
        let (mean, rest) = rest.split_at_mut(padded);
        let (scale, bias) = rest.split_at_mut(padded);
        mean[..channels].copy_from_slice(self.mean);
        scale[..channels].copy_from_slice(self.scale);
        bias[..channels].copy_from_slice(self.call.bias);
        for index in self.rows {
            // SAFETY: as in `Sums`; nobody else writes these rows.
            unsafe {
                self.call.x.read::<S>(index * channels, channels, row.as_mut_ptr());
                for at in (0..padded).step_by(S::LANES) {
                    let place = row.as_mut_ptr().add(at);
                    let v = S::sub(S::load(place), S::load(mean.as_ptr().add(at)));
                    let bias = S::load(bias.as_ptr().add(at));
                    S::store(place, S::mul_add(v, S::load(scale.as_ptr().add(at)), bias));
                }
                apply_to::<S>(self.call.activation, row.as_mut_ptr(), padded);
                for at in (0..channels).step_by(S::LANES) {
                    let v = S::load(row.as_ptr().add(at));
                    self.call.out.write::<S>(index * channels + at, v, S::LANES.min(channels - at));
                }
            }
        }
    }
}
