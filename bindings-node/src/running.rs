//! Work on a lane that tells a JavaScript function how far it is and how it ended.
//!
//! Progress waits in one place until the event loop comes for it, and newer overtakes older: however
//! fast the work is and however busy the loop, at most one message of it is on its way. When the
//! environment ends in the middle (a worker is terminated, the process exits), messages are refused,
//! which cancels the work.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{Function, Object, ToNapiValue, sys};
use napi::threadsafe_function::{
    ThreadsafeFunction, ThreadsafeFunctionCallMode, UnknownReturnValue,
};
use napi::{Env, Status};
use napi_derive::napi;
use tagbrush::{Control, Error, ErrorKind, Result};

use crate::errors::{Answer, Failure, answer, failed, panicked};
use crate::image::Image;
use crate::lane::Lane;

/// The function that hears of the work: `(event) => void`.
pub(crate) type Listener<'a> = Function<'a, Event, UnknownReturnValue>;

type Teller = ThreadsafeFunction<Event, UnknownReturnValue, Event, Status, false>;

/// Work that was started. It ends without this too.
#[napi]
pub struct Running(Control);

#[napi]
impl Running {
    /// Asks the work to stop at its next item or step.
    #[napi]
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

/// What the listener is called with: `{ progress }`, `{ item }`, `{ value }` or `{ failure }`.
pub struct Event(What);

enum What {
    Progress(Arc<Latest>),
    /// An item, or how the work ended.
    Ready(Box<dyn FnOnce(Env) -> napi::Result<sys::napi_value> + Send>),
}

/// How far work is, as JavaScript reads it.
#[napi(object, object_from_js = false)]
pub struct Progress {
    /// Items or steps that are done.
    pub done: f64,
    /// How many there are, if known.
    pub total: Option<f64>,
    /// Seconds that the rest takes, if that can be told.
    pub seconds_left: Option<f64>,
    /// The newest picture of each output since the last event.
    pub previews: Vec<Preview>,
}

/// A picture in the making.
#[napi(object, object_from_js = false)]
pub struct Preview {
    /// The number of the output.
    pub output: u32,
    /// Steps that it has made.
    pub step: u32,
    /// Steps that it will make.
    pub steps: u32,
    /// The picture.
    pub image: Image,
}

/// What the listener was not told yet.
#[derive(Default)]
struct Latest(Mutex<News>);

#[derive(Default)]
struct News {
    /// The newest.
    progress: Option<tagbrush::Progress>,
    /// The newest of each output; the listener has not seen them.
    previews: BTreeMap<usize, tagbrush::Preview>,
    /// Whether a message is on its way.
    is_announced: bool,
}

impl Latest {
    /// Takes something in; true if the listener must be called for it.
    fn add(&self, take: impl FnOnce(&mut News)) -> bool {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        take(&mut news);
        !std::mem::replace(&mut news.is_announced, true)
    }

    fn take(&self) -> Result<Option<Progress>> {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        news.is_announced = false;
        let Some(progress) = news.progress else { return Ok(None) };
        let previews = std::mem::take(&mut news.previews);
        drop(news);
        let previews = previews.into_values().map(|preview| {
            let (width, height) = (preview.width, preview.height);
            let image = tagbrush::Image::from_rgb8(width, height, &*preview.pixels)?;
            let [output, step, steps] =
                [preview.output, preview.step, preview.steps].map(|number| number as u32);
            Ok(Preview { output, step, steps, image: Image::new(image) })
        });
        Ok(Some(Progress {
            done: progress.done as f64,
            total: progress.total.map(|total| total as f64),
            seconds_left: progress.left.map(|left| left.as_secs_f64()),
            previews: previews.collect::<Result<_>>()?,
        }))
    }
}

impl ToNapiValue for Event {
    unsafe fn to_napi_value(raw: sys::napi_env, event: Self) -> napi::Result<sys::napi_value> {
        let env = Env::from_raw(raw);
        let mut object = Object::new(&env)?;
        match event.0 {
            What::Progress(latest) => match latest.take() {
                Ok(progress) => object.set("progress", progress)?,
                Err(error) => object.set("failure", Failure::from(error))?,
            },
            What::Ready(convert) => return convert(env),
        }
        // SAFETY: the object was made in this environment.
        unsafe { Object::to_napi_value(raw, object) }
    }
}

/// `{ value }` or `{ failure }`, or with another name what came before the end.
fn named<T: ToNapiValue>(env: Env, name: &str, result: Result<T>) -> napi::Result<sys::napi_value> {
    let mut object = Object::new(&env)?;
    match answer(result) {
        Answer::A(value) => {
            if let Err(error) = object.set(name, value) {
                object.set("failure", Failure::from(failed(&error)))?;
            }
        }
        Answer::B(failure) => object.set("failure", failure)?,
    }
    // SAFETY: the object was made in this environment.
    unsafe { Object::to_napi_value(env.raw(), object) }
}

/// Runs `work` on a lane. The listener is told how it ended, exactly once, unless this fails.
///
/// The event loop stays alive until then.
pub(crate) fn start<T: ToNapiValue + Send + 'static>(
    lane: &Lane,
    listener: Listener<'_>,
    wants: Wants,
    work: impl FnOnce(&Control) -> Result<T> + Send + 'static,
) -> Result<Running> {
    start_each(lane, listener, wants, move |control, _: &mut dyn FnMut(())| work(control))
}

/// As [`start`], for work that also gives items to a function, of which the listener hears in order.
pub(crate) fn start_each<I, T>(
    lane: &Lane,
    listener: Listener<'_>,
    wants: Wants,
    work: impl FnOnce(&Control, &mut dyn FnMut(I)) -> Result<T> + Send + 'static,
) -> Result<Running>
where
    I: ToNapiValue + Send + 'static,
    T: ToNapiValue + Send + 'static,
{
    let teller: Arc<Teller> = Arc::new(
        listener
            .build_threadsafe_function::<Event>()
            .build_callback(|context| Ok(context.value))
            .map_err(|e| failed(&e))?,
    );
    let control = Control::new();
    let latest = Arc::new(Latest::default());
    let tell = {
        let (teller, control) = (Arc::clone(&teller), control.clone());
        move |take: &mut dyn FnMut(&mut News)| {
            if latest.add(take) {
                let event = Event(What::Progress(Arc::clone(&latest)));
                if teller.call(event, ThreadsafeFunctionCallMode::NonBlocking) != Status::Ok {
                    control.cancel(); // Nobody is left who could want the answer.
                }
            }
        }
    };
    let mut reporting = control.clone();
    if wants.preview {
        let tell = tell.clone();
        reporting = reporting.on_preview(move |preview| {
            tell(&mut |news| drop(news.previews.insert(preview.output, preview.clone())));
        });
    }
    let reporting =
        reporting.on_progress(move |progress| tell(&mut |news| news.progress = Some(progress)));
    lane.submit(move || {
        let mut give = |item| {
            if reporting.is_cancelled() {
                return; // Nobody waits for it any more.
            }
            let event = Event(What::Ready(Box::new(move |env| named(env, "item", Ok(item)))));
            if teller.call(event, ThreadsafeFunctionCallMode::NonBlocking) != Status::Ok {
                reporting.cancel();
            }
        };
        let result = catch_unwind(AssertUnwindSafe(|| work(&reporting, &mut give)))
            .unwrap_or_else(|panic| Err(panicked(&*panic)));
        let result = match reporting.is_cancelled() {
            // Nobody waits for it any more, and a long list of cancelled items would hold up the event loop.
            true => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
            false => result,
        };
        drop(reporting);
        let event = Event(What::Ready(Box::new(move |env| named(env, "value", result))));
        // Refused only when the environment has ended.
        teller.call(event, ThreadsafeFunctionCallMode::NonBlocking);
    })?;
    Ok(Running(control))
}

/// What the listener is told of.
#[derive(Clone, Copy)]
pub(crate) struct Wants {
    /// Pictures in the making, which cost some time.
    pub(crate) preview: bool,
}

/// No pictures.
pub(crate) const QUIET: Wants = Wants { preview: false };

/// Runs `work` here and now.
pub(crate) fn wait<T>(work: impl FnOnce(&Control) -> Result<T>) -> Answer<T> {
    let result = catch_unwind(AssertUnwindSafe(|| work(&Control::new())));
    answer(result.unwrap_or_else(|panic| Err(panicked(&*panic))))
}
