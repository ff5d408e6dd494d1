//! Tags as one line of text: captions for training, prompts, search.

use std::collections::HashSet;

use super::names::{TagMatcher, escaped, normalised, with_spaces};
use super::tags::{Tag, Tags};
use crate::error::{Error, Result};

/// Whether and where a caption has the rating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RatingPlace {
    /// Nowhere.
    #[default]
    None,
    /// Before all tags.
    First,
    /// After all tags.
    Last,
}

impl std::str::FromStr for RatingPlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(RatingPlace::None),
            "first" => Ok(RatingPlace::First),
            "last" => Ok(RatingPlace::Last),
            _ => Err(Error::invalid_input(format!(
                "unknown place `{text}` for the rating; known: none, first, last"
            ))
            .with("field", "rating")),
        }
    }
}

/// How tags are written as one line.
///
/// The line has the characters, then the other tags, each list in its own order. Spaces,
/// underscores and case do not matter where tags are named here.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CaptionOptions {
    /// What stands between two tags; `", "` unless set.
    pub separator: String,
    /// Keep underscores; otherwise they become spaces, except in smileys such as `>_<`.
    pub keep_underscores: bool,
    /// Put a backslash before parentheses and backslashes, as prompts want it.
    pub escape: bool,
    /// Write `(tag:0.997)`, the tag with its probability.
    pub weights: bool,
    /// Whether and where the most probable rating is given.
    pub rating: RatingPlace,
    /// Put the characters behind the other tags.
    pub characters_last: bool,
    /// Tags that stand first when they are there, in this order.
    pub always_first: Vec<String>,
    /// Tags that are written as something else, as pairs; an empty text leaves the tag out.
    pub replace: Vec<(String, String)>,
    /// Texts before all tags, written as they are.
    pub prepend: Vec<String>,
    /// Texts behind all tags, written as they are.
    pub append: Vec<String>,
}

impl Default for CaptionOptions {
    fn default() -> Self {
        Self {
            separator: ", ".to_owned(),
            keep_underscores: false,
            escape: false,
            weights: false,
            rating: RatingPlace::None,
            characters_last: false,
            always_first: Vec::new(),
            replace: Vec::new(),
            prepend: Vec::new(),
            append: Vec::new(),
        }
    }
}

impl Tags {
    /// The tags as one line.
    pub fn caption(&self, options: &CaptionOptions) -> String {
        self.caption_parts(options).join(&options.separator)
    }

    /// The parts of the line, without repetitions.
    pub(crate) fn caption_parts(&self, options: &CaptionOptions) -> Vec<String> {
        let rating = |place| self.rating().filter(|_| options.rating == place);
        let (first, second) = match options.characters_last {
            false => (&self.characters, &self.tags),
            true => (&self.tags, &self.characters),
        };
        let mut tags: Vec<&Tag> = rating(RatingPlace::First).into_iter().collect();
        tags.extend(first.iter().chain(second));
        tags.extend(rating(RatingPlace::Last));
        for name in options.always_first.iter().rev() {
            let matcher = TagMatcher::new([name]);
            if let Some(place) = tags.iter().position(|tag| matcher.has(&tag.name)) {
                tags[..=place].rotate_right(1);
            }
        }
        let written = tags.iter().filter_map(|tag| written(tag, options));
        let parts = options.prepend.iter().cloned().chain(written).chain(options.append.clone());
        let mut seen = HashSet::new();
        parts.filter(|part| !part.is_empty() && seen.insert(normalised(part))).collect()
    }
}

/// One tag as it is written, or `None` if it is replaced by nothing.
fn written(tag: &Tag, options: &CaptionOptions) -> Option<String> {
    let name = normalised(&tag.name);
    let replacement = options.replace.iter().find(|(from, _)| normalised(from) == name);
    let text = match replacement {
        Some((_, to)) if to.is_empty() => return None,
        Some((_, to)) => to.clone(),
        None if options.keep_underscores => tag.name.to_string(),
        None => with_spaces(&tag.name),
    };
    let text = if options.escape { escaped(&text) } else { text };
    Some(if options.weights { format!("({text}:{:.3})", tag.score) } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tagger::labels::Category;

    fn tags() -> Tags {
        let tag =
            |name: &str, score, category| Tag { name: name.into(), score, category, index: 0 };
        Tags {
            ratings: vec![
                tag("general", 0.9, Category::RATING),
                tag("explicit", 0.1, Category::RATING),
            ],
            characters: vec![tag("rin_(vocaloid)", 0.9966, Category::CHARACTER)],
            tags: vec![
                tag("long_hair", 0.9, Category::GENERAL),
                tag(">_<", 0.8, Category::GENERAL),
                tag("1girl", 0.7, Category::GENERAL),
            ],
        }
    }

    fn caption(change: impl FnOnce(&mut CaptionOptions)) -> String {
        let mut options = CaptionOptions::default();
        change(&mut options);
        tags().caption(&options)
    }

    #[test]
    fn underscores_parentheses_and_weights() {
        assert_eq!(caption(|_| ()), "rin (vocaloid), long hair, >_<, 1girl");
        assert_eq!(
            caption(|o| (o.keep_underscores, o.escape) = (true, true)),
            "rin_\\(vocaloid\\), long_hair, >_<, 1girl"
        );
        assert_eq!(
            caption(|o| (o.weights, o.escape) = (true, true)),
            "(rin \\(vocaloid\\):0.997), (long hair:0.900), (>_<:0.800), (1girl:0.700)"
        );
        assert_eq!(caption(|o| o.separator = " ".into()), "rin (vocaloid) long hair >_< 1girl");
    }

    #[test]
    fn order_and_ratings() {
        assert_eq!(
            caption(|o| (o.rating, o.characters_last) = (RatingPlace::First, true)),
            "general, long hair, >_<, 1girl, rin (vocaloid)"
        );
        assert_eq!(
            caption(|o| o.always_first = vec!["1girl".into(), "solo".into(), "Long Hair".into()]),
            "1girl, long hair, rin (vocaloid), >_<"
        );
        assert!(caption(|o| o.rating = RatingPlace::Last).ends_with("1girl, general"));
    }

    #[test]
    fn replaced_added_and_repeated_texts() {
        let text = caption(|o| {
            o.replace =
                vec![("Long hair".into(), "flowing_hair".into()), (">_<".into(), String::new())];
            o.prepend = vec!["my_style".into(), "1girl".into()];
            o.append = vec!["best quality".into(), "Flowing hair".into()];
        });
        assert_eq!(text, "my_style, 1girl, rin (vocaloid), flowing_hair, best quality");
    }
}
