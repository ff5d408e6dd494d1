//! What the outputs of a tagger mean: the `selected_tags.csv` of a model folder.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::weights::ModelDir;

/// What kind of tag a label is: Danbooru's category numbers, and those that others added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Category(pub u32);

impl Category {
    /// General tags, `0`.
    pub const GENERAL: Category = Category(0);
    /// Artists, `1`.
    pub const ARTIST: Category = Category(1);
    /// Copyrights, `3`.
    pub const COPYRIGHT: Category = Category(3);
    /// Characters, `4`.
    pub const CHARACTER: Category = Category(4);
    /// Meta tags, `5`.
    pub const META: Category = Category(5);
    /// Content ratings, `9`.
    pub const RATING: Category = Category(9);

    const NAMES: [(&'static str, Category); 6] = [
        ("general", Category::GENERAL),
        ("artist", Category::ARTIST),
        ("copyright", Category::COPYRIGHT),
        ("character", Category::CHARACTER),
        ("meta", Category::META),
        ("rating", Category::RATING),
    ];
}

impl std::str::FromStr for Category {
    type Err = Error;

    /// A category's number, or its name in lower case.
    fn from_str(text: &str) -> Result<Self> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, id)| *id);
        named.or_else(|| text.parse().ok().map(Category)).ok_or_else(|| {
            Error::invalid_input(format!(
                "unknown category `{text}`; known: general, artist, copyright, character, meta, \
                 rating, or a number"
            ))
            .with("field", "category")
        })
    }
}

/// One label of a model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Label {
    /// The tag as the model's author wrote it, with underscores.
    pub name: Arc<str>,
    /// What kind of tag it is.
    pub category: Category,
    /// How many pictures had it in training, where the file says so.
    pub count: Option<u64>,
    /// The threshold that the model's author found best for it, where the file says so.
    pub best_threshold: Option<f32>,
}

/// The labels of a model, in the order of its outputs.
#[derive(Clone, Debug)]
pub struct Labels {
    labels: Vec<Label>,
    category_thresholds: BTreeMap<Category, f32>,
}

/// Names under which published models have the file.
const FILES: &[&str] = &["selected_tags.csv", "tags-selected.csv"];

impl Labels {
    /// The labels in the order of the model's outputs.
    pub fn as_slice(&self) -> &[Label] {
        &self.labels
    }

    /// The number of labels.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no labels; a loaded model has some.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The thresholds by category that the model's author recommends, where the folder has them.
    pub fn category_thresholds(&self) -> &BTreeMap<Category, f32> {
        &self.category_thresholds
    }

    /// Those of the text of a label file.
    #[cfg(any(test, feature = "gpu-check"))]
    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(Self { labels: parse_labels(text)?, category_thresholds: BTreeMap::new() })
    }

    pub(crate) fn load(dir: &ModelDir) -> Result<Self> {
        let file = FILES.iter().find(|file| dir.has(file)).unwrap_or(&FILES[0]);
        let labels =
            parse_labels(&dir.text(file)?).map_err(|e| e.with("file", dir.origin(file)))?;
        let thresholds = "thresholds.csv";
        let category_thresholds = match dir.has(thresholds) {
            true => parse_thresholds(&dir.text(thresholds)?)
                .map_err(|e| e.with("file", dir.origin(thresholds)))?,
            false => BTreeMap::new(),
        };
        Ok(Self { labels, category_thresholds })
    }
}

fn reader(text: &str) -> csv::Reader<&[u8]> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes())
}

fn invalid(line: u64, message: impl std::fmt::Display) -> Error {
    Error::model_invalid(format!("{message}")).with("line", line)
}

/// The columns of a label file, found by name so that their order and additions do not matter.
struct Columns {
    name: usize,
    category: usize,
    count: Option<usize>,
    best_threshold: Option<usize>,
}

pub(crate) fn parse_labels(text: &str) -> Result<Vec<Label>> {
    let mut reader = reader(text);
    let headers = reader.headers().map_err(|e| invalid(1, e))?.clone();
    let column = |name: &str| headers.iter().position(|header| header.trim() == name);
    let required = |name: &str| {
        column(name).ok_or_else(|| invalid(1, format!("the label file has no column `{name}`")))
    };
    let columns = Columns {
        name: required("name")?,
        category: required("category")?,
        count: column("count"),
        best_threshold: column("best_threshold"),
    };
    let mut labels = Vec::new();
    let mut lines = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(|e| {
            let line = e.position().map_or(0, csv::Position::line);
            invalid(line, format!("the label file is damaged: {e}"))
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        let label = parse_label(&record, &columns).map_err(|e| e.with("line", line))?;
        if let Some(first) = lines.insert((label.name.clone(), label.category), line) {
            let message = format!("the tag `{}` is there twice, first in line {first}", label.name);
            return Err(invalid(line, message));
        }
        labels.push(label);
    }
    if labels.is_empty() {
        return Err(Error::model_invalid("the label file has no labels"));
    }
    Ok(labels)
}

fn parse_label(record: &csv::StringRecord, columns: &Columns) -> Result<Label> {
    let field = |index: usize| record.get(index).unwrap_or_default().trim();
    let wrong = |column: &str, text: &str| {
        Error::model_invalid(format!("`{text}` is no valid {column} in the label file"))
    };
    let name = record.get(columns.name).unwrap_or_default();
    if name.is_empty() {
        return Err(Error::model_invalid("a tag has no name"));
    }
    let category = field(columns.category);
    let category = category.parse().map(Category).map_err(|_| wrong("category", category))?;
    let count = columns.count.map(field).filter(|text| !text.is_empty());
    let threshold = columns.best_threshold.map(field).filter(|text| !text.is_empty());
    Ok(Label {
        name: name.into(),
        category,
        // Some files have counts as 12.0.
        count: count
            .map(|text| text.parse::<f64>().map_err(|_| wrong("count", text)))
            .transpose()?
            .map(|count| count as u64),
        best_threshold: threshold
            .map(|text| parse_threshold(text).ok_or_else(|| wrong("threshold", text)))
            .transpose()?,
    })
}

/// `thresholds.csv` as pixai and animetimm publish it: a row for each category.
pub(crate) fn parse_thresholds(text: &str) -> Result<BTreeMap<Category, f32>> {
    let mut reader = reader(text);
    let headers = reader.headers().map_err(|e| invalid(1, e))?.clone();
    let column = |name: &str| {
        headers
            .iter()
            .position(|header| header.trim() == name)
            .ok_or_else(|| invalid(1, format!("the threshold file has no column `{name}`")))
    };
    let (category, threshold) = (column("category")?, column("threshold")?);
    let mut thresholds = BTreeMap::new();
    for record in reader.records() {
        let record =
            record.map_err(|e| invalid(0, format!("the threshold file is damaged: {e}")))?;
        let line = record.position().map_or(0, csv::Position::line);
        let row =
            (record.get(category).unwrap_or_default(), record.get(threshold).unwrap_or_default());
        let parsed = row.0.trim().parse().ok().map(Category).zip(parse_threshold(row.1.trim()));
        let (category, threshold) = parsed.ok_or_else(|| {
            invalid(line, format!("`{}`, `{}` is no category and threshold", row.0, row.1))
        })?;
        thresholds.insert(category, threshold);
    }
    Ok(thresholds)
}

fn parse_threshold(text: &str) -> Option<f32> {
    text.parse().ok().filter(|threshold: &f32| threshold.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quotes_byte_order_mark_and_extra_columns() {
        let text = "\u{feff}tag_id,name,category,count,ips\r\n\
                    1,general,9,10.0,\r\n\
                    2,\"don't_say_\"\"lazy\"\"\",0,5,\"[\"\"a\"\", \"\"b\"\"]\"\r\n\
                    3,\\m/,0,,\r\n";
        let labels = parse_labels(text).unwrap();
        let names: Vec<_> = labels.iter().map(|label| &*label.name).collect();
        assert_eq!(names, ["general", "don't_say_\"lazy\"", "\\m/"]);
        assert_eq!(labels[0].category, Category::RATING);
        assert_eq!((labels[0].count, labels[2].count), (Some(10), None));
    }

    #[test]
    fn damage_is_named_with_its_line() {
        for (text, expected) in [
            ("", "no column"),
            ("name,count\na,1\n", "`category`"),
            ("name,category\n", "no labels"),
            ("name,category\na,x\n", "line=2"),
            ("name,category\na,0\nb,-1\n", "line=3"),
            ("name,category\n,0\n", "no name"),
            ("name,category\na,0\nb,0\na,0\n", "twice, first in line 2"),
            ("name,category\na,0,7\n", "line=2"),
            ("name,category,best_threshold\na,0,nan\n", "threshold"),
        ] {
            let error = parse_labels(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn categories_have_names_and_numbers() {
        assert_eq!("character".parse::<Category>().unwrap(), Category::CHARACTER);
        assert_eq!("10".parse::<Category>().unwrap(), Category(10));
        assert!("Character".parse::<Category>().is_err());
    }
}
