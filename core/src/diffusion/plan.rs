//! Which samples go through the network together: a pure function of their sizes.

use std::ops::Range;

/// Cuts samples, in their order, into runs of at most `most` samples and at most `budget` tokens each.
/// A sample that exceeds the budget alone is a run of its own.
pub(crate) fn runs(tokens: &[usize], budget: usize, most: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut sum = 0usize;
    for (i, tokens) in tokens.iter().enumerate() {
        sum = sum.saturating_add(*tokens);
        match runs.last_mut() {
            Some(run) if sum <= budget && run.len() < most => run.end = i + 1,
            _ => {
                runs.push(i..i + 1);
                sum = *tokens;
            }
        }
    }
    runs
}
