"""How fast pictures are generated against diffusers on the CPU, from the same weights in one process, in turn.

Writes SDXL at its published widths with random weights, and with fewer layers of the largest transformers so that both fit into
memory (`--layers`, 10 in the published one). Both sides make the same pictures: the same noise, Euler, guidance. They are compared
first; then both are asked in turn for several rounds, with a pause between, as threads of either may wait for work by spinning.
Prints seconds for each step of each picture and for decoding, and writes `results/generate.json`. Nothing else should run on the
machine. Needs the reference libraries (`core/tests/goldens/requirements.txt`) and the wheel (`make wheel`).

    python benches/generate.py [--cases 1x512,4x512,1x1024] [--dtype f32] [--layers 3] [--steps 3] [--rounds 2] [--folder DIR]
"""

import argparse
import json
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import diffusers
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import tagbrush
from generate_full_size import LARGE, SMALL, UNET, VAE
from machine import machine

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDENS = ROOT / "core/tests/goldens"
sys.path.insert(0, str(GOLDENS))
from make_generate_text import randomise  # noqa: E402

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
PROMPT, SEED, SCALE = "a red cat", 11, 7.0
TEXT_LAYERS = 2
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
# Between two sides.
PAUSE = 1.0


def write(folder, layers):
    """The model's folder."""
    generator = torch.Generator().manual_seed(1)
    text = lambda kind, values: kind(CLIPTextConfig(**values | dict(num_hidden_layers=TEXT_LAYERS, bos_token_id=0, eos_token_id=1)))
    tokenizers = []
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(GOLDENS / "generate-pipeline/model" / name, folder / name)
        more = dict(pad_token="!") if name == "tokenizer_2" else {}
        tokenizers.append(CLIPTokenizer.from_pretrained(folder / name, model_max_length=77, **more))
    for values in (SMALL, LARGE):
        values.pop("model_type", None)
    config = UNET | dict(transformer_layers_per_block=[1, 2, layers], sample_size=128)
    parts = text(CLIPTextModel, SMALL), text(CLIPTextModelWithProjection, LARGE)
    parts = [*parts, UNet2DConditionModel(**config), AutoencoderKL(**VAE)]
    small, large, unet, vae = (randomise(part, generator) for part in parts)
    for encoder in (small, large):
        encoder.config.eos_token_id = tokenizers[0].eos_token_id
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    pipeline = StableDiffusionXLPipeline(vae, small, large, *tokenizers, unet, scheduler, add_watermarker=False)
    pipeline.to(torch.bfloat16).save_pretrained(folder)


class Diffusers:
    """The reference, in the memory layout that is faster on CPUs."""

    def __init__(self, folder, dtype):
        self.pipeline = StableDiffusionXLPipeline.from_pretrained(folder, dtype=DTYPES[dtype], add_watermarker=False)
        self.pipeline.set_progress_bar_config(disable=True)
        # As with us.
        self.pipeline.vae.to(torch.float32)
        self.pipeline.vae.config.force_upcast = False
        for part in (self.pipeline.unet, self.pipeline.vae):
            part.to(memory_format=torch.channels_last)

    def make(self, count, side, steps):
        """The pictures, and when each step and everything ended."""
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(steps)
        noise = [torch.randn(1, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(SEED + i)) for i in range(count)]
        noise = torch.cat(noise) * (1 + float(scheduler.sigmas[0]) ** 2) ** 0.5 / float(scheduler.init_noise_sigma)
        start, ends = time.perf_counter(), []

        def ended(pipeline, step, time_of_step, values):
            ends.append(time.perf_counter() - start)
            return values

        made = self.pipeline(
            PROMPT, negative_prompt="bad", guidance_scale=SCALE, width=side, height=side, num_images_per_prompt=count,
            latents=noise.to(self.pipeline.unet.dtype), num_inference_steps=steps, output_type="latent",
            callback_on_step_end=ended, original_size=(side, side), target_size=(side, side),
        ).images  # fmt: skip
        pictures = []
        with torch.no_grad():
            # One after the other, which is faster on a CPU.
            for latents in made.float() / self.pipeline.vae.config.scaling_factor:
                pictures.append((self.pipeline.vae.decode(latents[None]).sample[0] / 2 + 0.5).clamp(0, 1))
        ends.append(time.perf_counter() - start)
        return [picture.permute(1, 2, 0).numpy() for picture in pictures], ends


class Tagbrush:
    def __init__(self, folder, dtype):
        self.pipeline = tagbrush.GeneratePipeline.load(folder, dtype=dtype)

    def make(self, count, side, steps):
        start, ends = time.perf_counter(), []

        def ended(done, total, left):
            if done % count == 0:
                ends.append(time.perf_counter() - start)

        made = self.pipeline.generate(
            PROMPT, negative_prompt="bad", n=count, seed=SEED, size=(side, side), steps=steps, guidance_scale=SCALE,
            sampler="euler", scheduler="normal", size_guidance=None, adaptive_guidance=100.0, sharpness=0.0,
            keep_values=True, progress=ended,
        )  # fmt: skip
        ends.append(time.perf_counter() - start)
        return [picture.values for picture in made], ends


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="1x512,4x512,1x1024")
    parser.add_argument("--dtype", default="f32", choices=DTYPES)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=pathlib.Path, help="where the model is, or is written to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = measure(arguments, arguments.folder or pathlib.Path(temporary) / "sdxl")
    (ROOT / "benches/results/generate.json").write_text(json.dumps(results, indent=1) + "\n")


def measure(arguments, folder):
    if not (folder / "model_index.json").exists():
        print("writing the model", flush=True)
        write(folder, arguments.layers)
    sides = {"tagbrush": Tagbrush(folder, arguments.dtype), "diffusers": Diffusers(folder, arguments.dtype)}
    results = {
        "machine": machine(), "dtype": arguments.dtype, "layers": arguments.layers, "threads": torch.get_num_threads(),
        "versions": {module.__name__: module.__version__ for module in (torch, diffusers, tagbrush)}, "cases": [],
    }  # fmt: skip
    for case in arguments.cases.split(","):
        count, side = map(int, case.split("x"))
        found = {name: {"step": [], "decode": []} for name in sides}
        for _ in range(arguments.rounds):
            pictures = {}
            for name, maker in sides.items():
                time.sleep(PAUSE)
                pictures[name], ends = maker.make(count, side, arguments.steps)
                *steps, end = ends
                found[name]["step"].append((steps[-1] - steps[0]) / (len(steps) - 1) / count)
                found[name]["decode"].append((end - steps[-1]) / count)
            off = max(abs(a - b).max() for a, b in zip(*pictures.values()))
            mean = sum(abs(a - b).mean() for a, b in zip(*pictures.values())) / count
            assert mean < (1e-4 if arguments.dtype == "f32" else 0.03), f"pictures differ by {mean} in the mean"
        median = {name: {what: statistics.median(times) for what, times in found[name].items()} for name in found}
        ratio = {what: median["diffusers"][what] / median["tagbrush"][what] for what in ("step", "decode")}
        results["cases"].append(dict(count=count, side=side, difference=float(off), seconds=found, ratio=ratio))
        told = ", ".join(f"{name} {times['step']:.2f} s a step, {times['decode']:.2f} s to decode" for name, times in median.items())
        print(f"{count} of {side} px: {told}; {ratio['step']:.2f} and {ratio['decode']:.2f} times as fast; at most {off:.1e} apart", flush=True)
    return results


if __name__ == "__main__":
    main()
