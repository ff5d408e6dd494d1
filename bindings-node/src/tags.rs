//! What a tagger answers, as plain objects.

use napi_derive::napi;
use tagbrush::Category;

use crate::errors::{Answer, answer};
use crate::options::{Options, caption_options};
use crate::values::decimal;

/// One tag.
#[napi(object)]
pub struct Tag {
    /// As the model's author wrote it.
    pub name: String,
    /// The model's probability.
    pub score: f64,
    /// Danbooru's number of its kind.
    pub category: u32,
    /// Its place among the labels.
    pub index: u32,
}

/// The tags of one picture.
#[napi(object)]
pub struct Tags {
    /// All ratings.
    pub ratings: Vec<Tag>,
    /// Characters above the threshold.
    pub characters: Vec<Tag>,
    /// Other tags above the threshold.
    pub tags: Vec<Tag>,
}

fn list(tags: Vec<tagbrush::Tag>) -> Vec<Tag> {
    let convert = |tag: tagbrush::Tag| Tag {
        name: tag.name.to_string(),
        score: decimal(tag.score),
        category: tag.category.0,
        index: tag.index as u32,
    };
    tags.into_iter().map(convert).collect()
}

fn back(tags: Vec<Tag>) -> Vec<tagbrush::Tag> {
    let convert = |tag: Tag| {
        let category = Category(tag.category);
        tagbrush::Tag::new(tag.name, tag.score as f32, category, tag.index as usize)
    };
    tags.into_iter().map(convert).collect()
}

impl From<tagbrush::Tags> for Tags {
    fn from(tags: tagbrush::Tags) -> Self {
        Self {
            ratings: list(tags.ratings),
            characters: list(tags.characters),
            tags: list(tags.tags),
        }
    }
}

impl From<Tags> for tagbrush::Tags {
    fn from(tags: Tags) -> Self {
        let mut all = Self::default();
        all.ratings = back(tags.ratings);
        all.characters = back(tags.characters);
        all.tags = back(tags.tags);
        all
    }
}

/// The tags as one line.
#[napi]
pub fn caption(tags: Tags, options: Options<'_>) -> Answer<String> {
    answer(caption_options(&options).map(|options| tagbrush::Tags::from(tags).caption(&options)))
}
