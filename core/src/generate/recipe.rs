//! What a model's folder says of how its networks are used.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::schedule::Prediction;

/// The file that says which pipeline the networks are for.
pub(super) const FILE: &str = "model_index.json";
/// The file that says what the network answers.
pub(super) const SCHEDULER: &str = "scheduler/scheduler_config.json";
/// Sides of pictures are multiples of this: one latent of the published autoencoders.
pub(super) const MULTIPLE: usize = 8;
/// Longest side of a picture in pixels.
pub(super) const MAX_SIDE: usize = 1 << 13;
/// Width and height unless something else is asked for: those of Fooocus.
pub(super) const SIZE: (usize, usize) = (1152, 896);

/// The pipeline that a folder is for.
const CLASS: &str = "StableDiffusionXLPipeline";
/// How the noise of training grew, which the sigmas of all schedulers are from.
const TRAINING: [(&str, f64); 3] =
    [("beta_start", 0.00085), ("beta_end", 0.012), ("num_train_timesteps", 1000.0)];

/// The values of our own key `tagbrush`, for models that were trained for another size than SDXL.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    size: Option<[usize; 2]>,
}

/// Width and height of pictures whose size is not asked for, from the text of a `model_index.json`, which
/// must be that of a model that generates. The caller adds the file to errors.
pub(super) fn default_size(text: &str) -> Result<(usize, usize)> {
    let index = parse(text)?;
    match index.get("_class_name").and_then(Value::as_str) {
        Some(CLASS) => {}
        Some(other) => {
            return Err(Error::unsupported(format!(
                "the folder is for `{other}`; pictures are generated with `{CLASS}`"
            )));
        }
        None => return Err(Error::model_invalid("there is no `_class_name`")),
    }
    let own: Own = match index.get("tagbrush") {
        None => Own::default(),
        Some(own) => serde_json::from_value(own.clone())
            .map_err(|e| Error::model_invalid(format!("`tagbrush`: {e}")))?,
    };
    let Some([width, height]) = own.size else { return Ok(SIZE) };
    match [width, height].iter().all(|side| is_side(*side)) {
        true => Ok((width, height)),
        false => Err(Error::model_invalid(format!(
            "`tagbrush`: `size` is {width} x {height}; there are multiples of {MULTIPLE} up to {MAX_SIDE}"
        ))),
    }
}

/// Whether a picture may have such a side.
pub(super) fn is_side(side: usize) -> bool {
    (MULTIPLE..=MAX_SIDE).contains(&side) && side.is_multiple_of(MULTIPLE)
}

/// What the network answers, from the text of a `scheduler_config.json`. The caller adds the file to
/// errors.
pub(super) fn prediction(text: &str) -> Result<Prediction> {
    let config = parse(text)?;
    for (key, expected) in TRAINING {
        let found = config.get(key).filter(|value| !value.is_null());
        let fits = |value: &Value| value.as_f64().is_some_and(|x| (x - expected).abs() < 1e-9);
        if let Some(found) = found.filter(|value| !fits(value)) {
            return Err(Error::unsupported(format!("`{key}` is {found}; supported is {expected}")));
        }
    }
    let text_of = |key: &str| config.get(key).and_then(Value::as_str);
    match text_of("beta_schedule").unwrap_or("scaled_linear") {
        "scaled_linear" => {}
        other => {
            return Err(Error::unsupported(format!(
                "`beta_schedule` is {other}; supported is scaled_linear"
            )));
        }
    }
    match text_of("prediction_type").unwrap_or("epsilon") {
        "epsilon" => Ok(Prediction::Epsilon),
        "v_prediction" => Ok(Prediction::V),
        other => Err(Error::unsupported(format!(
            "`prediction_type` is {other}; supported are epsilon and v_prediction"
        ))),
    }
}

fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Error::model_invalid(format!("not JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_networks_are_told_apart() {
        assert_eq!(prediction("{}").unwrap(), Prediction::Epsilon);
        let v = r#"{"prediction_type": "v_prediction", "beta_start": 0.00085, "beta_end": 0.012}"#;
        assert_eq!(prediction(v).unwrap(), Prediction::V);
        for text in [
            r#"{"prediction_type": "sample"}"#,
            r#"{"beta_schedule": "linear"}"#,
            r#"{"beta_end": 0.02}"#,
            r#"{"num_train_timesteps": 500}"#,
            "[",
        ] {
            assert!(prediction(text).is_err(), "{text}");
        }
    }

    #[test]
    fn other_pipelines_are_refused() {
        for text in [r#"{"_class_name": "FluxPipeline"}"#, "{}", "["] {
            assert!(default_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folder_may_have_a_size_of_its_own() {
        let index = |own: &str| {
            default_size(&format!(r#"{{"_class_name": "StableDiffusionXLPipeline"{own}}}"#))
        };
        assert_eq!(index("").unwrap(), SIZE);
        assert_eq!(index(r#", "tagbrush": {}"#).unwrap(), SIZE);
        assert_eq!(index(r#", "tagbrush": {"size": [64, 128]}"#).unwrap(), (64, 128));
        for own in [r#"{"size": [60, 64]}"#, r#"{"size": [0, 64]}"#, r#"{"steps": 3}"#, "3"] {
            let error = index(&format!(r#", "tagbrush": {own}"#)).unwrap_err();
            assert!(error.message().contains("`tagbrush`"), "{error}");
        }
    }
}
