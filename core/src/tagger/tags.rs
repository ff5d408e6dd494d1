//! The answer for one picture.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::labels::Category;

/// One tag and how sure the model is of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tag {
    /// The tag as the model's author wrote it, with underscores.
    pub name: Arc<str>,
    /// The model's probability, 0 to 1.
    pub score: f32,
    /// What kind of tag it is.
    pub category: Category,
    /// Its place among the model's labels.
    pub index: usize,
}

impl Tag {
    /// A tag that was found before, for answers that come from a file or another process.
    pub fn new(name: impl Into<Arc<str>>, score: f32, category: Category, index: usize) -> Self {
        Self { name: name.into(), score, category, index }
    }
}

/// The tags of one picture.
///
/// Serialises as the tagger API documents it: three maps from names to probabilities, in the order
/// of the lists.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Tags {
    /// All content ratings of the model, whatever their probability.
    pub ratings: Vec<Tag>,
    /// The characters (category 4) above the threshold.
    pub characters: Vec<Tag>,
    /// All other tags above the threshold.
    pub tags: Vec<Tag>,
}

impl Tags {
    /// The most probable rating, if the model has ratings.
    pub fn rating(&self) -> Option<&Tag> {
        // Of equal ones the first, as an argmax gives it.
        self.ratings.iter().reduce(|best, tag| if tag.score > best.score { tag } else { best })
    }
}

impl Serialize for Tags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Tags", 3)?;
        fields.serialize_field("ratings", &Scores(&self.ratings))?;
        fields.serialize_field("characters", &Scores(&self.characters))?;
        fields.serialize_field("tags", &Scores(&self.tags))?;
        fields.end()
    }
}

/// A list of tags as a map from names to probabilities.
struct Scores<'a>(&'a [Tag]);

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for tag in self.0 {
            map.serialize_entry(&*tag.name, &tag.score)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str, score: f32) -> Tag {
        Tag { name: name.into(), score, category: Category::GENERAL, index: 0 }
    }

    #[test]
    fn serialises_as_ordered_maps() {
        let tags = Tags {
            ratings: vec![tag("general", 0.75), tag("sensitive", 0.25)],
            characters: vec![],
            tags: vec![tag("zebra", 0.5), tag("apple", 1.0)],
        };
        assert_eq!(
            serde_json::to_string(&tags).unwrap(),
            r#"{"ratings":{"general":0.75,"sensitive":0.25},"characters":{},"tags":{"zebra":0.5,"apple":1.0}}"#
        );
        assert_eq!(&*tags.rating().unwrap().name, "general");
    }
}
