//! What a model's folder says of how its networks are used.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::schedule::Prediction;

/// The file that says which pipeline the networks are for.
pub(super) const FILE: &str = "model_index.json";
/// The file that says what the network answers.
pub(super) const SCHEDULER: &str = "scheduler/scheduler_config.json";
/// Sides of pictures are multiples of this: one latent of the published autoencoders.
pub(super) const MULTIPLE: usize = 8;

/// The pipeline that a folder is for.
const CLASS: &str = "StableDiffusionXLPipeline";
/// How the noise of training grew, which the sigmas of all schedulers are from.
const TRAINING: [(&str, f64); 3] =
    [("beta_start", 0.00085), ("beta_end", 0.012), ("num_train_timesteps", 1000.0)];

/// Fails unless the text of a `model_index.json` is that of a model that generates. The caller adds the
/// file to errors.
pub(super) fn check_class(text: &str) -> Result<()> {
    match parse(text)?.get("_class_name").and_then(Value::as_str) {
        Some(CLASS) => Ok(()),
        Some(other) => Err(Error::unsupported(format!(
            "the folder is for `{other}`; pictures are generated with `{CLASS}`"
        ))),
        None => Err(Error::model_invalid("there is no `_class_name`")),
    }
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
        assert!(check_class(r#"{"_class_name": "StableDiffusionXLPipeline"}"#).is_ok());
        for text in [r#"{"_class_name": "FluxPipeline"}"#, "{}", "["] {
            assert!(check_class(text).is_err(), "{text}");
        }
    }
}
