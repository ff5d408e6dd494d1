//! What a prompt gives the network, made once for all steps.

use std::ops::Range;

use candle_core::{Result, Tensor};

/// Keys and values of a text for one layer, `(b, n, 2 c)`.
pub(super) type KeysValues = Tensor;

/// One text, and in SDXL its vector and the sizes, in the form in which every step needs them.
pub(crate) struct Prompt {
    /// Of every layer that attends to the text, in the order of the network, of one sample.
    pub(super) layers: Vec<KeysValues>,
    /// The embedding of vector and sizes, `(1, width)`.
    pub(super) added: Option<Tensor>,
    pub(super) tokens: usize,
}

impl Prompt {
    /// How many tokens the text has.
    #[cfg(test)]
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }
}

/// The prompts of a batch, one for each sample. Neighbours of one length are computed at once.
pub(super) struct Prompts<'a> {
    prompts: &'a [&'a Prompt],
    runs: Vec<Range<usize>>,
}

impl<'a> Prompts<'a> {
    pub(super) fn new(prompts: &'a [&'a Prompt]) -> Self {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if prompts[run.start].tokens == prompt.tokens => run.end = i + 1,
                _ => runs.push(i..i + 1),
            }
        }
        Self { prompts, runs }
    }

    /// Runs of samples with their keys and values for a layer.
    pub(super) fn of_layer(&self, number: usize) -> Result<Vec<(Range<usize>, KeysValues)>> {
        let joined = |run: &Range<usize>| {
            let prompts = &self.prompts[run.clone()];
            let layers: Vec<_> =
                prompts.iter().map(|prompt| prompt.layers[number].clone()).collect();
            Ok((
                run.clone(),
                if run.len() == 1 { layers[0].clone() } else { Tensor::cat(&layers, 0)? },
            ))
        };
        self.runs.iter().map(joined).collect()
    }

    /// The embeddings of vectors and sizes, `(b, width)`.
    pub(super) fn added(&self) -> Result<Option<Tensor>> {
        let added: Vec<_> = self.prompts.iter().filter_map(|prompt| prompt.added.clone()).collect();
        if added.is_empty() { Ok(None) } else { Tensor::cat(&added, 0).map(Some) }
    }
}
