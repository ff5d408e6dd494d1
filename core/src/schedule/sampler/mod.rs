//! Samplers: from noise to an image along descending sigmas, by what a network says on the way.
//!
//! A sampler does not call the network. [`Sampler::query`] says what the network is to be asked next,
//! [`Sampler::accept`] takes the image that its answer tells of; so samples with samplers and
//! schedules of their own can be asked about together. Nothing changes before an answer is accepted
//! whole: a pass that failed can be done again.
//!
//! | name | what it is |
//! |---|---|
//! | `euler`, `ddim` | Euler's method (Karras et al. 2022); DDIM is the same (Song et al. 2021) |
//! | `euler_ancestral`, `ddpm` | Euler's method beyond the next sigma, and noise back to it; DDPM is the same (Ho et al. 2020) |
//! | `heun` | Heun's method (Karras et al. 2022, algorithm 2) |
//! | `heunpp2` | Heun's method with a third slope a step ahead, weighted by sigma (Carzit, Heun++) |
//! | `dpm_2`, `dpm_2_ancestral` | the midpoint method, the middle in log sigma (Crowson, k-diffusion) |
//! | `lms` | Adams-Bashforth of order 4 in sigma (k-diffusion) |
//! | `dpm_fast`, `dpm_adaptive` | DPM-Solver of orders up to 3 (Lu et al. 2022), fixed and adaptive steps |
//! | `dpmpp_2s_ancestral`, `dpmpp_2m` | DPM-Solver++ of order 2, in single steps and multistep (Lu et al. 2022) |
//! | `dpmpp_sde`, `dpmpp_2m_sde`, `dpmpp_3m_sde` | DPM-Solver++ for the stochastic equation (k-diffusion); with `_gpu` the same |
//! | `lcm` | the network's image, and noise again (Luo et al. 2023) |
//! | `tcd` | the network's image at 0.7 of the next timestep, and noise (Zheng et al. 2024) |
//! | `restart` | Heun's method, going back up between two sigmas (Xu et al. 2023) |
//! | `uni_pc`, `uni_pc_bh2` | UniPC of order 3 with B1 and B2 (Zhao et al. 2023) |
//!
//! A step is a function of what the network has answered since its start: it asks again or moves on.
//! All of them only add up latents, by coefficients that are computed in f64.

mod dpm_solver;
mod kind;
mod multistep;
mod noise;
mod restart;
mod single_step;
#[cfg(test)]
mod tests;
mod uni_pc;

use candle_core::{Result, Tensor, bail};

use self::dpm_solver::Adaptive;
pub use self::kind::SamplerKind;
pub(crate) use self::noise::Noise;
use crate::error;

/// What the network is to be asked.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    /// `image + sigma * noise`.
    pub(crate) latents: &'a Tensor,
    pub(crate) sigma: f64,
}

/// A step that was finished, as users count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepDone {
    /// Counted from 1.
    pub(crate) step: usize,
}

/// A sample on its way.
#[derive(Clone)]
pub(crate) struct Sampler {
    kind: SamplerKind,
    plan: Plan,
    noise: Noise,
    /// Where the sample is; in a step, where it was at its start.
    latents: Tensor,
    /// What is asked at present.
    asked: Option<(Tensor, f64)>,
    /// The intervals that are behind.
    interval: usize,
    /// How many steps there are, as users count them, if that is known.
    steps: Option<usize>,
    steps_done: usize,
    /// What was answered since the start of the step.
    answers: Vec<Answer>,
    /// The first answers of the steps before, the latest last.
    past: Vec<Answer>,
}

/// A step from one sigma to another.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Interval {
    from: f64,
    to: f64,
}

/// The intervals that a run goes through.
#[derive(Clone)]
enum Plan {
    Fixed(Vec<Interval>),
    Adaptive(Box<Adaptive>),
}

/// A network's answer: the image that is in `latents`.
#[derive(Clone)]
struct Answer {
    latents: Tensor,
    sigma: f64,
    denoised: Tensor,
}

impl Answer {
    /// The slope of the probability flow, which is the noise.
    fn slope(&self) -> Result<Tensor> {
        let scale = self.sigma.recip();
        linear(&[(scale, &self.latents), (-scale, &self.denoised)])
    }
}

/// What a sampler's function sees of a run: the present step and what was before.
struct Step<'a> {
    kind: SamplerKind,
    /// How many steps the run has, as users count them.
    steps: usize,
    intervals: &'a [Interval],
    /// The number of the present interval.
    index: usize,
    /// At least one.
    answers: &'a [Answer],
    past: &'a [Answer],
}

/// What a sampler's function decides.
enum Move {
    /// The network has to be asked about these latents at this sigma before the step is done.
    Ask(Tensor, f64),
    /// The step is done and leads to these latents.
    To(Tensor),
    /// The same, and the start of the step was corrected to the first latents.
    Corrected(Tensor, Tensor),
}

/// How many answers of earlier steps samplers look at.
const PAST: usize = 3;

impl Sampler {
    /// A sample that starts as `latents` at the first of `sigmas` and ends at the last. These are
    /// descending; only the last may be 0.
    ///
    /// # Errors
    /// For sigmas that are no such, and for one step where a sampler needs two.
    pub(crate) fn new(
        kind: SamplerKind,
        sigmas: &[f64],
        latents: Tensor,
        noise: Noise,
    ) -> error::Result<Self> {
        let is_descending = sigmas.is_sorted_by(|a, b| a > b && b.is_finite() && *b >= 0.0);
        if sigmas.len() < 2 || !is_descending || !sigmas[0].is_finite() {
            let why = "sigmas are two or more, descending, and not below 0";
            return Err(error::Error::invalid_input(why).with("field", "sigmas"));
        }
        let plan = match kind {
            SamplerKind::DpmAdaptive => {
                let (first, last) = dpm_solver::ends(kind, sigmas)?;
                Plan::Adaptive(Box::new(Adaptive::new(first, last, &latents)))
            }
            SamplerKind::DpmFast => Plan::Fixed(dpm_solver::fast(kind, sigmas)?),
            SamplerKind::Restart => Plan::Fixed(restart::plan(sigmas)),
            _ => Plan::Fixed(intervals(sigmas)),
        };
        // Restart spends on repetitions what it takes from the schedule, and a step of `dpm_fast` is
        // an evaluation: so many were asked for.
        let steps = (kind != SamplerKind::DpmAdaptive).then_some(sigmas.len() - 1);
        let mut sampler = Self {
            kind,
            plan,
            noise,
            latents,
            asked: None,
            interval: 0,
            steps,
            steps_done: 0,
            answers: Vec::new(),
            past: Vec::new(),
        };
        sampler.ask_first();
        Ok(sampler)
    }

    /// A run of the same kind that starts where this one is and knows nothing of its steps.
    pub(crate) fn again(&self, sigmas: &[f64]) -> error::Result<Self> {
        Self::new(self.kind, sigmas, self.latents.clone(), self.noise.clone())
    }

    /// What to ask the network next; nothing when the sample is done.
    pub(crate) fn query(&self) -> Option<Query<'_>> {
        self.asked.as_ref().map(|(latents, sigma)| Query { latents, sigma: *sigma })
    }

    /// Takes the image that the network sees in the latents of the query. Tells when a step is over.
    /// If it fails, nothing has changed. Whether numbers are finite is for the caller to look at.
    pub(crate) fn accept(&mut self, denoised: &Tensor) -> Result<Option<StepDone>> {
        let mut next = self.clone();
        let done = next.advance(denoised)?;
        *self = next;
        Ok(done)
    }

    /// The latents after the steps that are done; at the end the result.
    pub(crate) fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// How many steps were done.
    pub(crate) fn steps_done(&self) -> usize {
        self.steps_done
    }

    /// How many steps there are in all, as users count them; unknown if they are adaptive.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> Option<usize> {
        self.steps
    }

    fn advance(&mut self, denoised: &Tensor) -> Result<Option<StepDone>> {
        let Some((latents, sigma)) = self.asked.take() else { bail!("the sample is done") };
        if latents.shape() != denoised.shape() || latents.dtype() != denoised.dtype() {
            bail!("{denoised:?} is no answer to {latents:?}");
        }
        self.answers.push(Answer { latents, sigma, denoised: denoised.clone() });
        let is_over = match &mut self.plan {
            Plan::Adaptive(adaptive) => match adaptive.step(&mut self.answers)? {
                Move::Ask(latents, sigma) => {
                    self.asked = Some((latents, sigma));
                    false
                }
                Move::To(latents) | Move::Corrected(_, latents) => {
                    self.latents = latents;
                    self.answers.clear();
                    true
                }
            },
            Plan::Fixed(intervals) => {
                let step = Step {
                    kind: self.kind,
                    steps: self.steps.unwrap_or_default(),
                    intervals,
                    index: self.interval,
                    answers: &self.answers,
                    past: &self.past,
                };
                let (corrected, latents) = match step.run(&mut self.noise)? {
                    Move::Ask(latents, sigma) => {
                        self.asked = Some((latents, sigma));
                        return Ok(self.done(self.kind == SamplerKind::DpmFast));
                    }
                    Move::To(latents) => (None, latents),
                    Move::Corrected(start, latents) => (Some(start), latents),
                };
                let reached = intervals[self.interval].to;
                self.latents = match intervals.get(self.interval + 1) {
                    Some(next) if next.from > reached => {
                        raise(latents, reached, next.from, &mut self.noise)?
                    }
                    _ => latents,
                };
                self.interval += 1;
                let mut first = self.answers.swap_remove(0);
                first.latents = corrected.unwrap_or(first.latents);
                self.past.push(first);
                self.past.drain(..self.past.len().saturating_sub(PAST));
                self.answers.clear();
                self.noise.forget_above(reached);
                true
            }
        };
        if is_over {
            self.ask_first();
        }
        Ok(self.done(is_over))
    }

    /// Asks what every step asks first: where the sample is.
    fn ask_first(&mut self) {
        let sigma = match &self.plan {
            Plan::Fixed(intervals) => intervals.get(self.interval).map(|interval| interval.from),
            Plan::Adaptive(adaptive) => adaptive.sigma(),
        };
        self.asked = sigma.map(|sigma| (self.latents.clone(), sigma));
    }

    fn done(&mut self, is_over: bool) -> Option<StepDone> {
        self.steps_done += usize::from(is_over);
        is_over.then_some(StepDone { step: self.steps_done })
    }
}

impl Step<'_> {
    /// Goes on with the sampler's function.
    fn run(&self, noise: &mut Noise) -> Result<Move> {
        use SamplerKind as K;
        match self.kind {
            K::Euler | K::Ddim => single_step::euler(self),
            K::EulerAncestral | K::Ddpm => single_step::euler_ancestral(self, noise),
            K::Heun | K::Restart => single_step::heun(self),
            K::HeunPp2 => single_step::heunpp2(self),
            K::Dpm2 => single_step::dpm_2(self),
            K::Dpm2Ancestral => single_step::dpm_2_ancestral(self, noise),
            K::DpmPp2sAncestral => single_step::dpmpp_2s_ancestral(self, noise),
            K::DpmPpSde | K::DpmPpSdeGpu => single_step::dpmpp_sde(self, noise),
            K::Lcm => single_step::lcm(self, noise),
            K::Tcd => single_step::tcd(self, noise),
            K::Lms => multistep::lms(self),
            K::DpmPp2m => multistep::dpmpp_2m(self),
            K::DpmPp2mSde | K::DpmPp2mSdeGpu => multistep::dpmpp_2m_sde(self, noise),
            K::DpmPp3mSde | K::DpmPp3mSdeGpu => multistep::dpmpp_3m_sde(self, noise),
            K::UniPc | K::UniPcBh2 => uni_pc::step(self),
            K::DpmFast => dpm_solver::step(self),
            K::DpmAdaptive => bail!("{} has no fixed steps", self.kind),
        }
    }

    fn interval(&self) -> Interval {
        self.intervals[self.index]
    }

    /// The latents at the start of the step.
    fn latents(&self) -> &Tensor {
        &self.answers[0].latents
    }

    /// The image that the network sees at the start of the step.
    fn denoised(&self) -> &Tensor {
        &self.answers[0].denoised
    }
}

/// A step from each sigma to the next.
fn intervals(sigmas: &[f64]) -> Vec<Interval> {
    sigmas.windows(2).map(|pair| Interval { from: pair[0], to: pair[1] }).collect()
}

/// The sum of tensors, each times its coefficient. Terms without weight are left out.
fn linear(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (coefficient, tensor) in terms.iter().filter(|(coefficient, _)| *coefficient != 0.0) {
        let term = tensor.affine(*coefficient, 0.0)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    match (sum, terms) {
        (Some(sum), _) => Ok(sum),
        (None, [(_, tensor), ..]) => tensor.zeros_like(),
        (None, []) => bail!("a sum of nothing"),
    }
}

/// From one sigma to another, if the image is `denoised`.
fn towards(latents: &Tensor, denoised: &Tensor, from: f64, to: f64) -> Result<Tensor> {
    linear(&[(to / from, latents), (1.0 - to / from, denoised)])
}

/// Adds noise until latents are at a higher sigma.
fn raise(latents: Tensor, from: f64, to: f64, noise: &mut Noise) -> Result<Tensor> {
    let normal = noise.normal(&latents)?;
    linear(&[(1.0, &latents), ((to * to - from * from).sqrt(), &normal)])
}
