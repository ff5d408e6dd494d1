//! Which of a model's tags are kept, and in what order.

use std::collections::BTreeMap;

use super::labels::Category;
use super::names::TagMatcher;
use crate::error::{Error, Result};

/// The general threshold unless another one is set.
pub const DEFAULT_THRESHOLD: f32 = 0.35;

/// In what order tags are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The order of the model's labels.
    #[default]
    Labels,
    /// The most probable first; of equal ones in the order of the labels.
    Score,
    /// By name.
    Name,
}

impl std::str::FromStr for Order {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "labels" => Ok(Order::Labels),
            "score" => Ok(Order::Score),
            "name" => Ok(Order::Name),
            _ => Err(Error::invalid_input(format!(
                "unknown order `{text}`; known: labels, score, name"
            ))
            .with("field", "order")),
        }
    }
}

/// Which tags of a picture are kept.
///
/// A tag is kept when its probability is **greater** than its threshold. The threshold of a tag is
/// the first of these that is set: its own, its category's, the model's best one for it (with
/// [`best_thresholds`](Self::best_thresholds)), the general one. Ratings are always all kept.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TagOptions {
    /// The general threshold, 0 to 1; more than 1 keeps nothing. [`DEFAULT_THRESHOLD`] unless set.
    pub threshold: f32,
    /// Thresholds of categories; the general one where none is set.
    pub category_thresholds: BTreeMap<Category, f32>,
    /// Thresholds of single tags, by name; spaces, underscores and case do not matter.
    pub tag_thresholds: BTreeMap<String, f32>,
    /// Use the thresholds that the model's author recommends for tags and categories, where the
    /// model has them.
    pub best_thresholds: bool,
    /// Find the threshold of each category in the scores themselves: the middle of the largest gap
    /// between neighbouring ones (Largeron et al., MCut, 2012); for characters at least 0.15.
    pub mcut: bool,
    /// Keep at most this many characters, and at most this many other tags: the most probable.
    pub top_k: Option<usize>,
    /// Tags that are never given; spaces, underscores and case do not matter.
    pub exclude: Vec<String>,
    /// Drop tags that say less than another one that is there: `long_hair` beside
    /// `very_long_hair`, by whole words and by [`implications`](Self::implications).
    pub drop_redundant: bool,
    /// Which tags imply others, as pairs (`very_long_hair`, `long_hair`).
    pub implications: Vec<(String, String)>,
    /// The order of each list.
    pub order: Order,
}

impl Default for TagOptions {
    fn default() -> Self {
        Self {
            threshold: DEFAULT_THRESHOLD,
            category_thresholds: BTreeMap::new(),
            tag_thresholds: BTreeMap::new(),
            best_thresholds: false,
            mcut: false,
            top_k: None,
            exclude: Vec::new(),
            drop_redundant: false,
            implications: Vec::new(),
            order: Order::Labels,
        }
    }
}

impl TagOptions {
    /// The same options with another general threshold.
    #[must_use]
    pub fn threshold(mut self, threshold: f32) -> Self {
        self.threshold = threshold;
        self
    }

    /// The same options with a threshold for one category.
    #[must_use]
    pub fn category_threshold(mut self, category: Category, threshold: f32) -> Self {
        self.category_thresholds.insert(category, threshold);
        self
    }

    /// The same options with a threshold for characters.
    #[must_use]
    pub fn character_threshold(self, threshold: f32) -> Self {
        self.category_threshold(Category::CHARACTER, threshold)
    }

    /// The same options with a threshold for one tag.
    #[must_use]
    pub fn tag_threshold(mut self, tag: impl Into<String>, threshold: f32) -> Self {
        self.tag_thresholds.insert(tag.into(), threshold);
        self
    }

    /// The same options with or without the model's own recommended thresholds.
    #[must_use]
    pub fn best_thresholds(mut self, on: bool) -> Self {
        self.best_thresholds = on;
        self
    }

    /// The same options with or without MCut.
    #[must_use]
    pub fn mcut(mut self, on: bool) -> Self {
        self.mcut = on;
        self
    }

    /// The same options with at most `k` tags of a kind.
    #[must_use]
    pub fn top_k(mut self, k: usize) -> Self {
        self.top_k = Some(k);
        self
    }

    /// The same options with more tags that are never given.
    #[must_use]
    pub fn exclude<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.exclude.extend(tags.into_iter().map(Into::into));
        self
    }

    /// The same options with or without dropping tags that say less than others.
    #[must_use]
    pub fn drop_redundant(mut self, on: bool) -> Self {
        self.drop_redundant = on;
        self
    }

    /// The same options with more implications, as pairs of the implying and the implied tag.
    #[must_use]
    pub fn implications(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        self.implications.extend(pairs);
        self
    }

    /// The same options with another order.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Fails on values that mean nothing.
    pub(super) fn check(&self) -> Result<()> {
        let named = |field: &'static str, name: &str, threshold: f32| {
            if threshold.is_finite() && threshold >= 0.0 {
                return Ok(());
            }
            let error =
                Error::invalid_input(format!("the threshold is {threshold}, not 0 or more"));
            let error = error.with("field", field);
            Err(if name.is_empty() { error } else { error.with("for", name) })
        };
        named("threshold", "", self.threshold)?;
        for (category, threshold) in &self.category_thresholds {
            named("category_thresholds", &category.0.to_string(), *threshold)?;
        }
        for (tag, threshold) in &self.tag_thresholds {
            named("tag_thresholds", tag, *threshold)?;
        }
        Ok(())
    }

    /// Matches the tags to leave out.
    pub(super) fn excluded(&self) -> TagMatcher {
        TagMatcher::new(&self.exclude)
    }
}
