//! From probabilities to tags: thresholds, selection, order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use super::labels::{Category, Labels};
use super::names::{TagMatcher, normalised, says_less};
use super::options::{Order, TagOptions};
use super::tags::{Tag, Tags};
use crate::error::{Error, Result};

/// MCut finds no fewer characters than this threshold would.
const LOWEST_CHARACTER_MCUT: f64 = 0.15;

/// The options of a run, resolved against a model's labels once.
pub(super) struct Selection<'a> {
    labels: &'a Labels,
    options: &'a TagOptions,
    /// The threshold of every label, unless MCut finds it per picture.
    thresholds: Vec<f32>,
    excluded: TagMatcher,
    /// For every implied tag the ones that imply it.
    implied_by: HashMap<String, Vec<String>>,
}

impl<'a> Selection<'a> {
    pub(super) fn new(labels: &'a Labels, options: &'a TagOptions) -> Result<Self> {
        options.check()?;
        let mut own: HashMap<String, f32> = options
            .tag_thresholds
            .iter()
            .map(|(name, threshold)| (normalised(name), *threshold))
            .collect();
        let thresholds = labels
            .as_slice()
            .iter()
            .map(|label| {
                if !own.is_empty()
                    && let Some(threshold) = own.get(&normalised(&label.name))
                {
                    return *threshold;
                }
                let of_category = options.category_thresholds.get(&label.category).copied();
                let best = || {
                    let of_category = labels.category_thresholds().get(&label.category).copied();
                    label.best_threshold.or(of_category).filter(|_| options.best_thresholds)
                };
                of_category.or_else(best).unwrap_or(options.threshold)
            })
            .collect();
        for label in labels.as_slice() {
            own.remove(&normalised(&label.name));
        }
        if let Some(unknown) = own.keys().min() {
            return Err(Error::invalid_input(format!("the model has no tag `{unknown}`"))
                .with("field", "tag_thresholds"));
        }
        let mut implied_by: HashMap<String, Vec<String>> = HashMap::new();
        for (more, less) in &options.implications {
            implied_by.entry(normalised(less)).or_default().push(normalised(more));
        }
        Ok(Self { labels, options, thresholds, excluded: options.excluded(), implied_by })
    }

    /// The tags of one picture, from the probability of every label.
    pub(super) fn apply(&self, scores: &[f32]) -> Tags {
        let cuts = if self.options.mcut { self.mcuts(scores) } else { BTreeMap::new() };
        let mut tags = Tags::default();
        for (index, (label, score)) in self.labels.as_slice().iter().zip(scores).enumerate() {
            let category = label.category;
            let kept = category == Category::RATING
                || match cuts.get(&category) {
                    Some(cut) => f64::from(*score) > *cut,
                    None => *score > self.thresholds[index],
                };
            if !kept || (category != Category::RATING && self.excluded.has(&label.name)) {
                continue;
            }
            let list = match category {
                Category::RATING => &mut tags.ratings,
                Category::CHARACTER => &mut tags.characters,
                _ => &mut tags.tags,
            };
            list.push(Tag { name: label.name.clone(), score: *score, category, index });
        }
        for list in [&mut tags.characters, &mut tags.tags] {
            if self.options.drop_redundant {
                self.drop_redundant(list);
            }
            if let Some(k) = self.options.top_k {
                list.sort_by(by_score);
                list.truncate(k);
                list.sort_by_key(|tag| tag.index);
            }
        }
        for list in [&mut tags.ratings, &mut tags.characters, &mut tags.tags] {
            match self.options.order {
                Order::Labels => {}
                Order::Score => list.sort_by(by_score),
                Order::Name => list.sort_by(|a, b| a.name.cmp(&b.name)),
            }
        }
        tags
    }

    /// The MCut threshold of every category that has at least two labels.
    fn mcuts(&self, scores: &[f32]) -> BTreeMap<Category, f64> {
        let mut by_category: BTreeMap<Category, Vec<f64>> = BTreeMap::new();
        for (label, score) in self.labels.as_slice().iter().zip(scores) {
            by_category.entry(label.category).or_default().push(f64::from(*score));
        }
        by_category
            .into_iter()
            .filter_map(|(category, scores)| {
                let cut = mcut(scores)?;
                let lowest =
                    if category == Category::CHARACTER { LOWEST_CHARACTER_MCUT } else { 0.0 };
                Some((category, cut.max(lowest)))
            })
            .collect()
    }

    fn drop_redundant(&self, list: &mut Vec<Tag>) {
        let names: Vec<String> = list.iter().map(|tag| normalised(&tag.name)).collect();
        let mut position = 0;
        list.retain(|_| {
            let name = &names[position];
            position += 1;
            let implied = self.implied_by.get(name).into_iter().flatten();
            !names.iter().any(|other| says_less(name, other))
                && !implied.clone().any(|more| names.contains(more))
        });
    }
}

fn by_score(a: &Tag, b: &Tag) -> Ordering {
    b.score.total_cmp(&a.score).then(a.index.cmp(&b.index))
}

/// The middle of the largest gap between neighbouring scores (Largeron, Moulin and Géry, "MCut: a
/// thresholding strategy for multi-label classification", 2012). Of equal gaps the highest counts.
fn mcut(mut scores: Vec<f64>) -> Option<f64> {
    scores.sort_by(|a, b| b.total_cmp(a));
    let gaps = scores.windows(2).map(|pair| (pair[0] - pair[1], (pair[0] + pair[1]) / 2.0));
    gaps.reduce(|best, gap| if gap.0 > best.0 { gap } else { best }).map(|(_, middle)| middle)
}

#[cfg(test)]
mod tests;
