//! Networks that make pictures larger (ESRGAN), in the three spellings that files have: the first one numbers all
//! layers (`model.1.sub.0.RDB1.conv1.0.weight`, as Fooocus' file does), the second one is that of ESRGAN's own code
//! (`RRDB_trunk.0.RDB1.conv1.weight`), the third one that of BasicSR and Real-ESRGAN (`body.0.rdb1.conv1.weight`), whose
//! names all get here.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::Source;
use super::mapped::not_readable;
use super::pickle::{PickleFile, is_pickle};
use super::renamed::{Name, Renamed};
use super::safetensors::SafeTensorsFile;
use crate::error::{Error, Result};

/// What programs put the network under: the average of training is better than its last state.
const KEYS: [&str; 4] = ["params_ema.", "params.", "state_dict.", "model_state_dict."];
/// What programs put before names.
const PREFIXES: [&str; 2] = ["module.", "generator."];

/// Opens a file of such a network: safetensors, or a checkpoint of PyTorch.
pub(crate) fn open(path: &Path) -> Result<Arc<dyn Source>> {
    let mut start = [0; 4];
    let mut file = std::fs::File::open(path).map_err(|e| not_readable(path, e))?;
    // A shorter file is refused by its reader.
    let source: Arc<dyn Source> = match file.read_exact(&mut start).is_ok() && is_pickle(&start) {
        true => Arc::new(PickleFile::open(path)?),
        false => Arc::new(SafeTensorsFile::open(path)?),
    };
    renamed(source).map_err(|error| error.with("file", path.display()))
}

/// The network in a file under the names of BasicSR.
fn renamed(source: Arc<dyn Source>) -> Result<Arc<dyn Source>> {
    let names = source.names();
    let key = KEYS.iter().find(|key| names.iter().any(|name| name.starts_with(**key)));
    let inside = |name: &str| -> Option<String> {
        let name = key.map_or(Some(name), |key| name.strip_prefix(*key))?;
        let plain = PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix));
        Some(plain.unwrap_or(name).to_owned())
    };
    let plain: Vec<String> = names.iter().filter_map(|name| inside(name)).collect();
    let numbered = Numbered::of(&plain);
    let known = |name: &str| match &numbered {
        Some(numbered) => numbered.rename(name),
        None => trunk(name).or_else(|| Some(name.to_owned())),
    };
    if numbered.is_none() && !plain.iter().any(|name| matches!(name.as_str(), "conv_first.weight"))
    {
        let listed: Vec<_> = names.iter().take(5).map(String::as_str).collect();
        return Err(Error::model_invalid(format!(
            "the file is no network of ESRGAN's kind (RRDBNet); it starts with {}",
            listed.join(", ")
        )));
    }
    Ok(Arc::new(Renamed::new(source, |name| match inside(name) {
        None => Name::Hidden,
        // What is not known keeps its name, so that it is left over and reported.
        Some(plain) => Name::Now(known(&plain).unwrap_or(plain)),
    })?))
}

/// Layers by their numbers: a convolution, blocks with a convolution behind them, and then convolutions with layers
/// without weights between them, of which all but the last two double the size.
struct Numbered {
    /// The number of the convolution behind the blocks.
    blocks: usize,
    /// Numbers of the convolutions behind that.
    convolutions: Vec<usize>,
}

impl Numbered {
    fn of(names: &[String]) -> Option<Self> {
        let number = |text: &str| text.parse::<u16>().ok().map(usize::from);
        let layer = |name: &String| number(name.strip_prefix("model.")?.strip_suffix(".weight")?);
        let block =
            |name: &String| number(name.strip_prefix("model.1.sub.")?.strip_suffix(".weight")?);
        let blocks = names.iter().filter_map(block).max()?;
        let convolutions: BTreeSet<usize> = names.iter().filter_map(layer).collect();
        Some(Self { blocks, convolutions: convolutions.into_iter().filter(|n| *n > 1).collect() })
    }

    fn rename(&self, name: &str) -> Option<String> {
        let part = name.strip_prefix("model.")?;
        if let Some(part) = part.strip_prefix("1.sub.") {
            let (number, part) = part.split_once('.')?;
            return match part.split_once(".conv") {
                None if number.parse() == Ok(self.blocks) => Some(format!("conv_body.{part}")),
                None => None,
                Some((dense, part)) => {
                    let dense = dense.strip_prefix("RDB")?;
                    let (layer, tensor) = part.split_once(".0.")?;
                    Some(format!("body.{number}.rdb{dense}.conv{layer}.{tensor}"))
                }
            };
        }
        let (number, tensor) = part.split_once('.')?;
        let number: usize = number.parse().ok()?;
        if number == 0 {
            return Some(format!("conv_first.{tensor}"));
        }
        let place = self.convolutions.iter().position(|known| *known == number)?;
        Some(match self.convolutions.len() - place {
            1 => format!("conv_last.{tensor}"),
            2 => format!("conv_hr.{tensor}"),
            _ => format!("conv_up{}.{tensor}", place + 1),
        })
    }
}

/// Names of ESRGAN's own code.
fn trunk(name: &str) -> Option<String> {
    if let Some(part) = name.strip_prefix("RRDB_trunk.") {
        let (number, part) = part.split_once('.')?;
        return Some(format!(
            "body.{number}.{}",
            part.strip_prefix("RDB").map(|p| format!("rdb{p}"))?
        ));
    }
    let (layer, tensor) = name.split_once('.')?;
    let layer = match layer {
        "trunk_conv" => "conv_body",
        "upconv1" => "conv_up1",
        "upconv2" => "conv_up2",
        "upconv3" => "conv_up3",
        "HRconv" => "conv_hr",
        _ => return None,
    };
    Some(format!("{layer}.{tensor}"))
}
