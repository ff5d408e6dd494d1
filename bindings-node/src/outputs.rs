//! What pipelines make: a picture, or what failed, in each request's places.

use std::cell::Cell;

use napi::bindgen_prelude::{BigInt, Either, Float32Array};
use napi_derive::napi;
use tagbrush::{Control, Error, ErrorKind, Result};

use crate::errors::{Answer, answer};
use crate::image::Image;
use crate::lane::Lane;
use crate::origin::Origin;
use crate::running::{Listener, QUIET, Running, start_each};
use crate::values::exact;

/// A picture that a pipeline made.
#[napi(object, object_from_js = false)]
pub struct Made {
    /// The picture.
    pub image: Image,
    /// The seed that gives it again.
    pub seed: Either<f64, BigInt>,
    /// The number of its request.
    pub request: u32,
    /// Which of the variants it is.
    pub variant: u32,
    /// The values before they were rounded to 8 bits.
    pub values: Option<Float32Array>,
    /// How it was generated.
    pub origin: Option<Origin>,
    /// What a user should know about how it was made.
    pub notes: Vec<String>,
}

impl From<tagbrush::Edited> for Made {
    fn from(edited: tagbrush::Edited) -> Self {
        let tagbrush::Edited { image, values, request, variant, seed, .. } = edited;
        made(image, values.as_deref(), [request, variant], seed, Vec::new())
    }
}

impl From<tagbrush::Generated> for Made {
    fn from(mut generated: tagbrush::Generated) -> Self {
        let (image, values) = (generated.image.clone(), generated.values.take());
        let place = [generated.request, generated.variant];
        let made = made(image, values.as_deref(), place, generated.seed, generated.notes.clone());
        Self { origin: Some(Origin(generated)), ..made }
    }
}

fn made(
    image: tagbrush::Image,
    values: Option<&[f32]>,
    place: [usize; 2],
    seed: u64,
    notes: Vec<String>,
) -> Made {
    let [request, variant] = place.map(|number| number as u32);
    let values = values.map(|values| Float32Array::new(values.to_vec()));
    let image = Image::new(image);
    Made { image, seed: exact(seed), request, variant, values, origin: None, notes }
}

/// The places of outputs, and what is wrong with pictures of requests that the core never sees.
pub(crate) struct Places {
    errors: Vec<Option<Error>>,
    /// Outputs of each request.
    n: usize,
}

impl Places {
    /// Requests with so many outputs each, as the core takes them, and their places. `convert` also gives
    /// what is wrong with a request's pictures, if something is.
    pub(crate) fn read<R, C>(
        requests: Vec<R>,
        n: usize,
        convert: impl Fn(R) -> Result<(C, Option<Error>)>,
    ) -> Result<(Vec<C>, Self)> {
        let (mut asked, mut errors) = (Vec::new(), Vec::new());
        for (i, request) in requests.into_iter().enumerate() {
            let (request, error) = convert(request).map_err(|error| error.with("request", i))?;
            asked.push(request);
            errors.push(error);
        }
        Ok((asked, Self { errors, n }))
    }

    /// An output or what failed.
    pub(crate) fn output(&self, number: usize, output: Result<impl Into<Made>>) -> Answer<Made> {
        let request = number / self.n;
        answer(match &self.errors[request] {
            Some(error) => Err(again(error).with("request", request)),
            None => output.map(Into::into),
        })
    }

    /// All of them.
    pub(crate) fn list(&self, outputs: Vec<Result<impl Into<Made>>>) -> Vec<Answer<Made>> {
        outputs.into_iter().enumerate().map(|(i, output)| self.output(i, output)).collect()
    }
}

/// The same error, for each variant of a request.
fn again(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.message().to_owned());
    error.context().iter().fold(copy, |copy, (key, value)| copy.with(key, value))
}

/// What makes outputs, and gives them to the function.
type Work = Box<dyn FnOnce(&Control, &mut dyn FnMut(Answer<Made>)) -> Result<()> + Send>;

/// Outputs that come one by one, once the work is started.
#[napi]
pub struct Outputs {
    waiting: Cell<Option<Work>>,
    lane: Lane,
}

impl Outputs {
    pub(crate) fn new(
        lane: &Lane,
        work: impl FnOnce(&Control, &mut dyn FnMut(Answer<Made>)) -> Result<()> + Send + 'static,
    ) -> Self {
        Self { waiting: Cell::new(Some(Box::new(work))), lane: lane.clone() }
    }
}

#[napi]
impl Outputs {
    /// Starts the work, once. The listener hears of each output when it and all before it are made.
    ///
    /// It goes on while nobody takes an output: work that waited would hold the pipeline, and never
    /// end for those who use the output that they have with the same one.
    #[napi]
    pub fn start(&self, listener: Listener<'_>) -> Answer<Running> {
        let Some(work) = self.waiting.take() else {
            return answer(Err(Error::new(ErrorKind::Internal, "the work was started twice")));
        };
        answer(start_each(&self.lane, listener, QUIET, work))
    }
}
