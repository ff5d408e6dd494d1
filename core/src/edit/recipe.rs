//! What the `model_index.json` of a folder says: which of the published pipelines its networks were
//! trained for, and what differs between these.

use serde::Deserialize;
use serde_json::Value;

use super::prompt::Template;
use super::vision::area_size;
use crate::error::{Error, Result};
use crate::pixels::Size;

/// The file that says it.
pub(super) const FILE: &str = "model_index.json";

/// Pixels that the autoencoder sees of a picture, and of an output whose size is not asked for.
const AREA: usize = 1024 * 1024;
/// Pixels that the vision part sees, in pipelines where that is not the same picture.
const VISION_AREA: usize = 384 * 384;
/// Sides of pictures are multiples of this.
const MULTIPLE: usize = 32;
/// Largest area that a folder or an option may ask for.
pub(super) const MAX_AREA: usize = 1 << 26;
/// Steps of denoising, and guidance, unless something else is asked for.
const STEPS: usize = 50;
const TRUE_CFG_SCALE: f32 = 4.0;

/// The values of our own key `tagbrush`, for models that were trained for other sizes than the
/// published ones, for which diffusers has constants.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    reference_area: Option<usize>,
    vision_area: Option<usize>,
    multiple: Option<usize>,
    steps: Option<usize>,
    true_cfg_scale: Option<f32>,
}

/// How a model wants to be used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recipe {
    pub(super) template: Template,
    /// Pixels of references for the autoencoder, and of outputs.
    pub(super) area: usize,
    /// Pixels of references for the vision part; `None` if it sees what the autoencoder sees.
    vision_area: Option<usize>,
    pub(super) multiple: usize,
    pub(super) steps: usize,
    pub(super) true_cfg_scale: f32,
}

impl Recipe {
    /// From the text of a `model_index.json`. The caller adds the file to errors.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| Error::model_invalid(format!("not JSON: {e}")))?;
        let class = value.get("_class_name").and_then(Value::as_str).unwrap_or_default();
        let template = match class {
            "QwenImageEditPipeline" => Template::Edit,
            "QwenImageEditPlusPipeline" => Template::EditPlus,
            "" => return Err(Error::model_invalid("there is no `_class_name`")),
            other => {
                return Err(Error::unsupported(format!(
                    "the folder is for `{other}`; pictures are edited with \
                     `QwenImageEditPipeline` and `QwenImageEditPlusPipeline`"
                )));
            }
        };
        let own: Own = match value.get("tagbrush") {
            None => Own::default(),
            Some(own) => serde_json::from_value(own.clone())
                .map_err(|e| Error::model_invalid(format!("`tagbrush`: {e}")))?,
        };
        let own_or = |name: &str, value: Option<usize>, default: usize, most: usize| match value {
            Some(value) if !(1..=most).contains(&value) => {
                Err(Error::model_invalid(format!("`{name}` is {value}, expected 1 to {most}")))
            }
            value => Ok(value.unwrap_or(default)),
        };
        let area = own_or("reference_area", own.reference_area, AREA, MAX_AREA)?;
        let vision_area = own_or("vision_area", own.vision_area, VISION_AREA, MAX_AREA)?;
        let true_cfg_scale = own.true_cfg_scale.unwrap_or(TRUE_CFG_SCALE);
        if !true_cfg_scale.is_finite() || true_cfg_scale < 0.0 {
            return Err(Error::model_invalid(format!("`true_cfg_scale` is {true_cfg_scale}")));
        }
        Ok(Self {
            template,
            area,
            vision_area: (template == Template::EditPlus).then_some(vision_area),
            multiple: own_or("multiple", own.multiple, MULTIPLE, 1024)?,
            steps: own_or("steps", own.steps, STEPS, super::request::MAX_STEPS)?,
            true_cfg_scale,
        })
    }

    /// The sizes of a picture of size `from` for the autoencoder and for the vision part.
    pub(super) fn sizes(&self, from: Size) -> Result<(Size, Size)> {
        let size = area_size(self.area, self.multiple, from)?;
        let vision = match self.vision_area {
            None => size,
            Some(area) => area_size(area, self.multiple, from)?,
        };
        Ok((size, vision))
    }

    /// The size of an output of pictures of these sizes: the proportions of the picture that the
    /// pipeline goes by, which is the last one where there may be several.
    pub(super) fn output_size(&self, pictures: &[Size]) -> Result<Size> {
        let picture = match self.template {
            Template::Edit => pictures.first(),
            Template::EditPlus => pictures.last(),
        };
        let picture = picture.ok_or_else(|| {
            Error::invalid_input("there is no picture to edit").with("field", "images")
        })?;
        area_size(self.area, self.multiple, *picture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn the_published_pipelines_are_told_apart() {
        let edit = Recipe::parse(r#"{"_class_name": "QwenImageEditPipeline"}"#).unwrap();
        assert_eq!(edit.sizes((200, 150)).unwrap(), ((1184, 896), (1184, 896)));
        assert_eq!(edit.output_size(&[(200, 150)]).unwrap(), (1184, 896));
        let plus = Recipe::parse(r#"{"_class_name": "QwenImageEditPlusPipeline"}"#).unwrap();
        assert_eq!(plus.sizes((4, 3)).unwrap(), ((1184, 896), (448, 320)));
        assert_eq!(plus.output_size(&[(1, 1), (97, 211)]).unwrap(), (704, 1504));
        assert_eq!((plus.steps, plus.true_cfg_scale), (50, 4.0));
        assert!(plus.output_size(&[]).is_err());
    }

    #[test]
    fn sizes_of_other_models_are_read_from_our_own_key() {
        let small = r#"{"_class_name": "QwenImageEditPlusPipeline", "tagbrush": {
            "reference_area": 4096, "vision_area": 3136, "multiple": 16, "steps": 8}}"#;
        let small = Recipe::parse(small).unwrap();
        assert_eq!(small.sizes((512, 512)).unwrap(), ((64, 64), (64, 64)));
        assert_eq!(small.sizes((3, 2)).unwrap().0, (80, 48));
        assert_eq!((small.steps, small.true_cfg_scale), (8, 4.0));
    }

    #[test]
    fn other_pipelines_and_values_are_refused() {
        for (text, expected) in [
            ("{}", "_class_name"),
            ("[", "JSON"),
            (r#"{"_class_name": "QwenImagePipeline"}"#, "QwenImagePipeline"),
            (r#"{"_class_name": "QwenImageEditPipeline", "tagbrush": {"size": 1}}"#, "size"),
            (r#"{"_class_name": "QwenImageEditPipeline", "tagbrush": {"steps": 0}}"#, "steps"),
            (
                r#"{"_class_name": "QwenImageEditPipeline", "tagbrush": {"multiple": 5000}}"#,
                "multiple",
            ),
        ] {
            let error = Recipe::parse(text).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(matches!(error.kind(), ErrorKind::ModelInvalid | ErrorKind::Unsupported));
        }
    }
}
