"""Writes `generate-samplers/`: what schedulers and samplers of SDXL give for a denoiser that is a formula.

- `schedules.safetensors` has sigmas in f64 under `<scheduler>/<sampler>/<steps>/<denoise>`, from the formulas of their papers in
  numpy, and checks them here against k-diffusion and diffusers where these have the same. `timesteps/...` are sigmas and
  timesteps by k-diffusion's denoisers, `scalings/...` what is around the network, by k-diffusion and diffusers.
- `samplers.safetensors` has `start` (normal numbers, to be scaled), `noise` (what samplers draw, in this order), and under
  `<sampler>/<scheduler>/<steps>/<denoise>` the latents at the end, computed in f64: by k-diffusion (euler, euler_ancestral, heun,
  dpm_2, dpm_2_ancestral, lms, dpm_fast, dpm_adaptive, all dpmpp), by diffusers (ddim, ddpm, lcm, tcd, uni_pc), and by the
  functions below (heunpp2, restart).

The denoiser is the mean of a mixture of two normal distributions for each number, see `denoise`.

    pip install -r requirements.txt && python make_generate_samplers.py
"""

import importlib.util
import math
import pathlib
import sys
import types

import diffusers.schedulers.scheduling_ddpm
import diffusers.schedulers.scheduling_lcm
import diffusers.schedulers.scheduling_tcd
import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import AysSchedules
from safetensors.torch import save_file

# The package asks for much that sampling does not need: only its folder is used.
package = types.ModuleType("k_diffusion")
package.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
sys.modules["k_diffusion"] = package
from k_diffusion import external, sampling  # noqa: E402

OUT = pathlib.Path(__file__).resolve().parent / "generate-samplers"
STEPS = (1, 2, 4, 8, 30)
torch.set_default_dtype(torch.float64)


# --- schedules --------------------------------------------------------------------

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHAS_CUMPROD = np.cumprod(1 - BETAS)
TABLE = ((1 - ALPHAS_CUMPROD) / ALPHAS_CUMPROD) ** 0.5
ALIGN = [14.6146, 6.3185, 3.7682, 2.1812, 1.3405, 0.8621, 0.5551, 0.3799, 0.2332, 0.1114, 0.0292]


def sigma_of(timesteps, known=np.arange(1000)):
    return np.exp(np.interp(timesteps, known, np.log(TABLE[known])))


def whole(scheduler, n):
    """The sigmas of n steps from nothing but noise, without the last, 0."""
    distilled = np.arange(19, 1000, 20)
    match scheduler:
        case "normal":
            return sigma_of(np.linspace(999, 0, n))
        case "sgm_uniform":
            return sigma_of(np.linspace(999, 0, n + 1)[:-1])
        case "lcm" | "tcd":
            return sigma_of(np.linspace(999, 19, n + 1)[:-1], distilled)
        case "karras":
            return sampling.get_sigmas_karras(n, TABLE[0], TABLE[-1])[:-1].numpy()
        case "edm_playground_v2.5":
            return sampling.get_sigmas_karras(n, 0.002, 120.0)[:-1].numpy()
        case "exponential":
            return sampling.get_sigmas_exponential(n, TABLE[0], TABLE[-1])[:-1].numpy()
        case "simple":
            return np.array([TABLE[::-1][math.floor(i * 1000 / n)] for i in range(n)])
        case "ddim_uniform":
            return TABLE[1 :: max(1000 // n, 1)][::-1]
        case "turbo":
            return TABLE[np.arange(999, 0, -100)[:n]]
        case "align_your_steps":
            return np.exp(np.interp(np.arange(n) / n, np.linspace(0, 1, 11), np.log(ALIGN)))


SCHEDULERS = (
    "normal karras exponential sgm_uniform simple ddim_uniform lcm turbo align_your_steps tcd edm_playground_v2.5".split()
)


def schedule(scheduler, sampler, steps, denoise=1.0):
    total = int(steps / denoise)
    if sampler in ("dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"):
        sigmas = whole(scheduler, total + 1)[:-1]
    else:
        sigmas = whole(scheduler, total)
    sigmas = np.append(sigmas, 0.0)
    return torch.tensor(sigmas[-(steps + 1) :] if denoise < 1 else sigmas.copy())


def schedules():
    out = {}
    for scheduler in SCHEDULERS:
        for sampler in ("euler", "uni_pc"):
            for steps in STEPS + (3, 10, 60):
                for denoise in (1.0, 0.5, 0.382):
                    if scheduler != "turbo" or int(steps / denoise) + (sampler == "uni_pc") <= 10:
                        out[f"{scheduler}/{sampler}/{steps}/{denoise}"] = schedule(scheduler, sampler, steps, denoise)

    def same(name, n, sigmas, tolerance=1e-4):
        # diffusers multiplies the table in f32, so its smallest sigmas are off in the fifth digit.
        np.testing.assert_allclose(whole(name, n), np.asarray(list(map(float, sigmas)))[:n], rtol=tolerance)

    sdxl = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    trailing = EulerDiscreteScheduler(timestep_spacing="trailing", **sdxl)
    linspace = EulerDiscreteScheduler(timestep_spacing="linspace", **sdxl)
    for n in (1, 2, 4, 8, 10, 20):
        trailing.set_timesteps(n)
        same("simple", n, trailing.sigmas)
    trailing.set_timesteps(10)
    same("turbo", 10, trailing.sigmas)
    # Timesteps of these numbers of steps are whole: between two, diffusers does not take logarithms.
    for n in (4, 10, 28):
        linspace.set_timesteps(n)
        same("normal", n, linspace.sigmas)
    for name, option in (("karras", "use_karras_sigmas"), ("exponential", "use_exponential_sigmas")):
        scheduler = EulerDiscreteScheduler(**{option: True}, **sdxl)
        scheduler.set_timesteps(30)
        same(name, 30, scheduler.sigmas)
    edm = EDMEulerScheduler(sigma_min=0.002, sigma_max=120.0, sigma_data=0.5, rho=7.0)
    edm.set_timesteps(30)
    same("edm_playground_v2.5", 30, edm.sigmas)
    # The published timesteps, rounded; diffusers has them with other digits.
    same("align_your_steps", 10, AysSchedules["StableDiffusionXLSigmas"], 2e-2)
    tcd = TCDScheduler(**sdxl)
    tcd.set_timesteps(50)
    np.testing.assert_array_equal(tcd.timesteps, np.arange(999, 0, -20))
    np.testing.assert_allclose(whole("tcd", 1), TABLE[tcd.timesteps[:1]])

    # Timesteps and what is around the network.
    sigmas = torch.tensor([0.02, TABLE[0], 0.03, 0.1, 0.7, TABLE[500], 2.5, 9.0, TABLE[999], 20.0])
    plain = external.DiscreteEpsDDPMDenoiser(None, torch.tensor(ALPHAS_CUMPROD), quantize=False)
    rounded = external.DiscreteEpsDDPMDenoiser(None, torch.tensor(ALPHAS_CUMPROD), quantize=True)
    velocity = external.DiscreteVDDPMDenoiser(None, torch.tensor(ALPHAS_CUMPROD), quantize=False)
    timesteps = torch.tensor([0.0, 0.25, 10.5, 333.25, 998.875, 999.0])
    out["timesteps/sigmas"] = sigmas
    out["timesteps/of_sigmas"] = plain.sigma_to_t(sigmas)
    out["timesteps/nearest"] = rounded.sigma_to_t(sigmas).to(torch.float64)
    out["timesteps/timesteps"] = timesteps
    out["timesteps/sigmas_of"] = plain.t_to_sigma(timesteps)
    c_out, c_in = plain.get_scalings(sigmas)
    out["scalings/epsilon"] = torch.stack([c_in, torch.ones_like(c_in), c_out])
    c_skip, c_out, c_in = velocity.get_scalings(sigmas)
    out["scalings/v"] = torch.stack([c_in, c_skip, c_out])
    one, zero = torch.ones(()), torch.zeros(())
    out["scalings/edm"] = torch.stack(
        [
            edm.precondition_inputs(one, sigmas),
            edm.precondition_outputs(one, zero, sigmas),
            edm.precondition_outputs(zero, one, sigmas),
            edm.precondition_noise(sigmas),
        ]
    )
    lcm = LCMScheduler()
    distilled = np.arange(19, 1000, 20)
    times = [distilled[np.abs(np.log(TABLE[distilled]) - np.log(s)).argmin()] for s in sigmas.numpy()]
    skip, weight = np.array([lcm.get_scalings_for_boundary_condition_discrete(int(t)) for t in times]).T
    out["scalings/lcm"] = torch.stack([c_in, torch.tensor(skip + weight), torch.tensor(-weight) * sigmas, torch.tensor(times)])
    save_file({key: value.contiguous() for key, value in out.items()}, OUT / "schedules.safetensors")


# --- samplers ---------------------------------------------------------------------

SHAPE = (1, 4, 2, 4)
START = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
NOISE = torch.randn((90, *SHAPE[1:]), generator=torch.Generator().manual_seed(2), dtype=torch.float32)
MEANS = (0.5 + torch.arange(START.numel()) / START.numel()).reshape(SHAPE)
VARIANCE = 0.09


def denoise(x, sigma, **_):
    """The mean of what x came from, if each number was at plus or minus MEANS with VARIANCE, and got noise."""
    total = VARIANCE + torch.as_tensor(sigma).reshape(-1)[0] ** 2
    return (VARIANCE * x + (total - VARIANCE) * MEANS * torch.tanh(MEANS * x / total)) / total


class Noise:
    """The next row of NOISE, whatever it is asked for."""

    def __init__(self):
        self.drawn = 0

    def __call__(self, *_args, **_kwargs):
        self.drawn += 1
        return NOISE[self.drawn - 1 : self.drawn].to(torch.float64)


def slope(x, sigma, image):
    return (x - image) / sigma


def heunpp2(x, sigmas):
    """Heun++: slopes at one and two steps ahead, weighted by their sigma against the first sigma of all."""
    for i in range(len(sigmas) - 1):
        first = slope(x, sigmas[i], denoise(x, sigmas[i]))
        points, slopes, weights = x, [first], []
        ahead = [s for s in sigmas[i + 1 : i + 3] if s > 0]
        for k, sigma in enumerate(ahead):
            points = points + slopes[-1] * (sigma - sigmas[i + k])
            slopes.append(slope(points, sigma, denoise(points, sigma)))
            weights.append(sigma / (sigmas[0] * (len(ahead) + 1)))
        mean = (1 - sum(weights)) * first + sum(w * s for w, s in zip(weights, slopes[1:]))
        x = x + mean * (sigmas[i + 1] - sigmas[i])
    return x


def restart(x, sigmas):
    """Restart: Heun's method with repetitions of the range between 2 and 0.1; the numbers of steps are Fooocus's."""
    steps = len(sigmas) - 1
    length, times = (steps // 4, 2) if steps >= 36 else (9, 1) if steps >= 20 else (0, 0)
    ranges = [sigmas.tolist()]
    if times:
        main = sampling.get_sigmas_karras(steps - length * times, sigmas[-2].item(), sigmas[0].item())
        low, high = (main - 0.1).abs().argmin(), (main - 2).abs().argmin()
        again = sampling.get_sigmas_karras(length + 1, main[low].item(), main[high].item())[:-1]
        ranges = [main[: low + 1].tolist()] + [again.tolist()] * times + [main[low:].tolist()]
    noise = Noise()
    evaluations = 0
    for before, sigmas in zip([None, *ranges], ranges):
        if before and sigmas[0] > before[-1] * (1 + 1e-9):
            x = x + noise() * (sigmas[0] ** 2 - before[-1] ** 2) ** 0.5
        x = sampling.sample_heun(denoise, x, torch.tensor(sigmas), disable=True)
        evaluations += len(sigmas) - 1
    assert evaluations == steps
    return x


def variance_preserving(sigmas):
    """alphas_cumprod with sigmas ascending behind an entry that is not used."""
    return torch.cat([torch.tensor([0.5]), 1 / (1 + sigmas[:-1].flip(0) ** 2)])


def with_diffusers(name, x, sigmas):
    """Runs a scheduler of diffusers along sigmas, from and to the variance exploding form."""
    n = len(sigmas) - 1
    options = dict(prediction_type="sample")
    noise = Noise()
    timesteps = torch.arange(n, 0, -1)
    match name:
        case "ddim":
            # Goes down by one timestep and then to an alpha of 1.
            scheduler = DDIMScheduler(num_train_timesteps=n, clip_sample=False, **options)
            scheduler.set_timesteps(n)
            scheduler.alphas_cumprod = variance_preserving(sigmas)[1:]
            timesteps = timesteps - 1
        case "ddpm":
            scheduler = DDPMScheduler(num_train_timesteps=n + 1, clip_sample=False, **options)
            scheduler.alphas_cumprod = variance_preserving(sigmas)
            scheduler.timesteps, scheduler.num_inference_steps = timesteps, n
            diffusers.schedulers.scheduling_ddpm.randn_tensor = noise
        case "lcm":
            # The boundary condition is not the sampler's: with this scaling it changes nothing.
            scheduler = LCMScheduler(num_train_timesteps=n + 1, original_inference_steps=n, timestep_scaling=1e12, **options)
            scheduler.alphas_cumprod = variance_preserving(sigmas)
            scheduler.timesteps, scheduler.num_inference_steps = timesteps, n
            diffusers.schedulers.scheduling_lcm.randn_tensor = noise
        case "tcd":
            scheduler = TCDScheduler(**options)
            scheduler.alphas_cumprod = torch.tensor(ALPHAS_CUMPROD)
            timesteps = torch.tensor([np.abs(TABLE - s).argmin() for s in sigmas[:-1].numpy()])
            torch.testing.assert_close(torch.tensor(TABLE[timesteps]).reshape(-1), sigmas[:-1])
            scheduler.timesteps, scheduler.num_inference_steps = timesteps, n
            diffusers.schedulers.scheduling_tcd.randn_tensor = noise
        case "uni_pc" | "uni_pc_bh2":
            kind = "bh1" if name == "uni_pc" else "bh2"
            scheduler = UniPCMultistepScheduler(solver_order=3, solver_type=kind, **options)
            scheduler.set_timesteps(n)
            # At 0 the B(h) of the first kind is infinite, and diffusers gives no number.
            scheduler.sigmas = torch.cat([sigmas[:-1], torch.tensor([1e-12])])
            scheduler.timesteps = timesteps
    x = x / (1 + sigmas[0] ** 2) ** 0.5
    for sigma, t in zip(sigmas, timesteps):
        scale = (1 + sigma**2) ** 0.5
        image = denoise(x * scale, sigma)
        if name == "tcd" and t == timesteps[-1]:
            # diffusers goes to timestep 0, where some noise is left; the last sigma here is 0.
            return image
        x = scheduler.step(image, int(t), x).prev_sample
    return x


def with_k_diffusion(name, x, sigmas):
    function = getattr(sampling, f"sample_{name}")
    options = dict(disable=True)
    if name in ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral") or name.endswith("sde"):
        options["noise_sampler"] = Noise()
    if name in ("dpmpp_2m_sde", "dpmpp_3m_sde") and len(sigmas) == 2:
        # k-diffusion fails after the last step if it is the first; that step is the image.
        return denoise(x, sigmas[0])
    if name == "dpm_fast":
        return function(denoise, x, sigmas[-2].item(), sigmas[0].item(), len(sigmas) - 1, **options)
    if name == "dpm_adaptive":
        return function(denoise, x, sigmas[-2].item(), sigmas[0].item(), **options)
    return function(denoise, x, sigmas, **options)


K_DIFFUSION = """euler euler_ancestral heun dpm_2 dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral dpmpp_sde dpmpp_2m
    dpmpp_2m_sde dpmpp_3m_sde""".split()
DIFFUSERS = "ddim ddpm lcm tcd uni_pc uni_pc_bh2".split()


def samplers():
    out = {"start": START, "noise": NOISE}
    for name in K_DIFFUSION + DIFFUSERS + ["heunpp2", "restart"]:
        # TCD of diffusers knows whole timesteps only.
        schedulers = ("simple", "turbo") if name == "tcd" else ("karras", "sgm_uniform", "align_your_steps")
        cases = [(s, n, 1.0) for s in schedulers for n in STEPS] + [(schedulers[0], 4, 0.5), (schedulers[0], 40, 1.0)]
        for scheduler, steps, part in cases:
            if name in ("dpm_fast", "dpm_adaptive") and steps == 1 or scheduler == "turbo" and steps > 10:
                continue
            sigmas = schedule(scheduler, name, steps, part)
            is_all_noise = sigmas[0] >= TABLE[-1] * (1 - 1e-5)
            scale = (1 + sigmas[0] ** 2) ** 0.5 if is_all_noise else sigmas[0]
            x = START.to(torch.float64) * scale
            if name in K_DIFFUSION:
                x = with_k_diffusion(name, x, sigmas)
            elif name in DIFFUSERS:
                x = with_diffusers(name, x, sigmas)
            else:
                x = {"heunpp2": heunpp2, "restart": restart}[name](x, sigmas)
            assert x.isfinite().all(), (name, scheduler, steps)
            out[f"{name}/{scheduler}/{steps}/{part}"] = x.to(torch.float32).contiguous()
    save_file(out, OUT / "samplers.safetensors")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    schedules()
    samplers()
