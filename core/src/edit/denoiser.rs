//! The transformer as the denoising loop asks it: latents, references and prompts of a batch, one
//! behind the other.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::batch::Passes;
use crate::control::Control;
use crate::diffusion::{Branch, Denoiser, Evaluation, keeping_length};
use crate::models::qwen_image::{
    Grid, Layout, Modulation, QwenImageTransformer, Sample, TransformerConfig,
};

/// What one output is made from.
pub(super) struct Condition {
    pub(super) target: Grid,
    /// Latents of the references, `(n, channels)` each, and their grids.
    pub(super) references: Vec<(Tensor, Grid)>,
    /// The states of the prompt, `(m, width)`.
    pub(super) positive: Tensor,
    /// The states of the negative prompt, with guidance.
    pub(super) negative: Option<Tensor>,
}

impl Condition {
    fn text(&self, branch: Branch) -> &Tensor {
        match (branch, &self.negative) {
            (Branch::Negative, Some(negative)) => negative,
            _ => &self.positive,
        }
    }

    /// Tokens of all passes of a step.
    pub(super) fn tokens(&self) -> usize {
        let pictures = self.references.iter().map(|(_, grid)| grid.tokens());
        let pictures = self.target.tokens() + pictures.sum::<usize>();
        let texts = [Some(&self.positive), self.negative.as_ref()];
        texts.iter().flatten().map(|text| pictures + text.dims()[0]).sum()
    }
}

/// Samples and passes of them, in the order of a batch.
type Key = Vec<(usize, Branch)>;

/// What a sample is made from, and for each step what its time does to the network.
type Input<'a> = (&'a Condition, Arc<Vec<Modulation>>);

/// The transformer with the inputs of all samples of a run.
pub(super) struct EditDenoiser<'a> {
    network: &'a QwenImageTransformer,
    config: &'a TransformerConfig,
    inputs: Vec<Input<'a>>,
    control: &'a Control,
    /// The layout of the last batch: the next step is laid out alike.
    layout: RefCell<Option<(Key, Arc<Layout>)>>,
    passes: Passes,
}

impl<'a> EditDenoiser<'a> {
    pub(super) fn new(
        network: &'a QwenImageTransformer,
        config: &'a TransformerConfig,
        inputs: Vec<Input<'a>>,
        control: &'a Control,
        passes: Passes,
    ) -> Self {
        Self { network, config, inputs, control, layout: RefCell::new(None), passes }
    }

    fn layout(&self, evaluations: &[Evaluation<'_>], near: &Tensor) -> Result<Arc<Layout>> {
        let key: Key = evaluations.iter().map(|e| (e.sample, e.branch)).collect();
        if let Some((last, layout)) = &*self.layout.borrow()
            && *last == key
        {
            return Ok(Arc::clone(layout));
        }
        let samples: Vec<_> = evaluations
            .iter()
            .map(|evaluation| {
                let (condition, _) = &self.inputs[evaluation.sample];
                Sample {
                    target: condition.target,
                    references: condition.references.iter().map(|(_, grid)| *grid).collect(),
                    text: condition.text(evaluation.branch).dims()[0],
                }
            })
            .collect();
        let layout = Layout::new(&samples, self.config, near.device());
        let layout = Arc::new(layout.map_err(candle_core::Error::wrap)?);
        *self.layout.borrow_mut() = Some((key, Arc::clone(&layout)));
        Ok(layout)
    }
}

impl Denoiser for EditDenoiser<'_> {
    fn answers(&self, evaluations: &[Evaluation<'_>]) -> Result<Vec<Tensor>> {
        let Some(first) = evaluations.first() else { return Ok(Vec::new()) };
        let layout = self.layout(evaluations, first.question.latents)?;
        let (mut image, mut text, mut modulations) = (Vec::new(), Vec::new(), Vec::new());
        for evaluation in evaluations {
            let (condition, times) = &self.inputs[evaluation.sample];
            image.push(evaluation.question.latents);
            image.extend(condition.references.iter().map(|(latents, _)| latents));
            text.push(condition.text(evaluation.branch));
            let Some(modulation) = times.get(evaluation.question.step) else {
                candle_core::bail!("no modulation for step {}", evaluation.question.step)
            };
            modulations.push(modulation);
        }
        let (image, text) = (Tensor::cat(&image, 0)?, Tensor::cat(&text, 0)?);
        let (network, control) = (self.network, self.control);
        let pass = || network.forward(&image, &text, &layout, &modulations, control);
        // Blocks are read by threads outside the pool.
        let all = if network.is_in_memory() { self.passes.run(pass) } else { pass() }?;
        let mut start = 0;
        let parts = evaluations.iter().map(|evaluation| {
            let rows = evaluation.question.latents.dims()[0];
            start += rows;
            all.narrow(0, start - rows, rows)
        });
        parts.collect()
    }
    fn guide(
        &self,
        _: &Evaluation<'_>,
        positive: &Tensor,
        negative: &Tensor,
        scale: f32,
    ) -> Result<Tensor> {
        keeping_length(positive, negative, scale)
    }
}
