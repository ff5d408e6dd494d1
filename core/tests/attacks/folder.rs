//! Model folders to break: a small golden one, taken apart and put together with lies in it.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use tagbrush::{Control, Error, Image, Result, Tagger};
use tempfile::TempDir;

use crate::build::golden;
use crate::memory::peak;

/// One tensor of a checkpoint.
#[derive(Clone)]
pub struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// A copy of a golden model folder, deleted when dropped.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self::of("vit-wd")
    }

    pub fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors", "selected_tags.csv"] {
            std::fs::copy(golden("timm").join(name).join(file), folder.path().join(file)).unwrap();
        }
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.path().join(file), bytes).unwrap();
        self
    }

    pub fn remove(&self, file: &str) -> &Self {
        std::fs::remove_file(self.path().join(file)).unwrap();
        self
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path().join(file)).unwrap()
    }

    pub fn config(&self, change: impl FnOnce(&mut Value)) -> &Self {
        let mut config = serde_json::from_slice(&self.read("config.json")).unwrap();
        change(&mut config);
        self.write("config.json", config.to_string())
    }

    pub fn tensors(&self, change: impl FnOnce(&mut Vec<Stored>)) -> &Self {
        let bytes = self.read("model.safetensors");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stored = |(name, view): (String, TensorView<'_>)| Stored {
            name,
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        let mut tensors: Vec<_> = file.tensors().into_iter().map(stored).collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        change(&mut tensors);
        let views = tensors.iter().map(|tensor| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
            (tensor.name.as_str(), view.unwrap())
        });
        self.write("model.safetensors", safetensors::serialize(views, None).unwrap())
    }

    pub fn load(&self) -> Result<Tagger> {
        Tagger::load(self.path().to_str().unwrap(), &Default::default())
    }

    /// The error of a folder that must not load, which holds little memory on the way to it.
    pub fn refused(&self) -> Error {
        let (result, held) = peak(|| self.load());
        let error = result.expect_err("the folder loaded");
        assert!(held < 100 << 20, "{held} bytes held for: {error}");
        error
    }
}

/// The scores of one picture, the same for every tagger.
pub fn scores(tagger: &Tagger) -> Result<Vec<f32>> {
    let pixels: Vec<u8> = (0..40 * 30 * 3).map(|i: u32| (i * i % 251) as u8).collect();
    let image = Image::from_rgb8(40, 30, pixels).unwrap();
    tagger.scores([image], &Control::new()).remove(0)
}
