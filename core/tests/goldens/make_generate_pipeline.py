"""Writes `generate-pipeline/`: a small SDXL model as diffusers publishes it, and pictures that its pipeline makes.

Weights are random, perturbed everywhere, with values that bfloat16 has; the text encoders know the bytes and the first merges of
CLIP's vocabulary. Everything is computed in f32.

- `model/` is the folder of the model.
- `golden.json` has texts with what both encoders make of them, and pictures by their options. `bf16` of a picture is how far its
  values are from those below, in the mean, when the pipeline runs in bf16 but for its autoencoder.
- `golden.safetensors` has `prompt.i.states` and `prompt.i.pooled`, computed from the encoders' states as Fooocus weighs and joins
  them, and `picture.i`, the values of the pipeline before they are brought to 8 bits, `(h, w, 3)` from 0 to 1.

    pip install -r requirements.txt && python make_generate_pipeline.py
"""

import json
import pathlib
import re
import shutil

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from make_generate_prompts import MERGES, vocabulary
from make_generate_text import randomise
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

OUT = pathlib.Path(__file__).resolve().parent / "generate-pipeline"
NUMBER_OF_MERGES = 60
START, END = "<|startoftext|>", "<|endoftext|>"

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)

# Texts of an image, how many of them make its vector, and CLIP skip.
PROMPTS = [
    (["a cat"], 1, 2),
    (["a (cat:1.4) on a ((mat)), (dark:0.6)"], 1, 2),
    (["", "a (b:-1)"], 1, 1),
    (["one two three, " * 12, "a [dog] (at (night:1.2)) \\(here\\)", "x"], 2, 3),
]  # fmt: skip

PICTURES = [
    dict(prompt="a red cat", negative="bad", steps=4, cfg=7.0, sampler="euler", scheduler="normal", seed=3, size=(64, 64)),
    dict(prompt="the sea", negative="", steps=10, cfg=3.5, sampler="dpmpp_2m", scheduler="karras", seed=4, size=(128, 64)),
    dict(prompt="the sea", negative="", steps=28, cfg=1.0, sampler="euler", scheduler="normal", seed=7, size=(64, 128)),
    dict(prompt="a hill", negative="", steps=5, cfg=3.0, sampler="euler", scheduler="normal", seed=8, size=(64, 64), denoise=0.5),
    dict(prompt="a b c", negative="d", steps=20, cfg=5.0, sampler="dpmpp_2m", scheduler="karras", seed=2**32 - 1, size=(64, 64)),
]  # fmt: skip


def tokenizer(folder, **padding):
    folder.mkdir(parents=True)
    merges = MERGES.read_text().splitlines()[1 : NUMBER_OF_MERGES + 1]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "vocab.json").write_text(json.dumps(vocabulary(merges)))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, **padding)


def text_config(words, **values):
    return CLIPTextConfig(
        vocab_size=len(words), max_position_embeddings=77, bos_token_id=words[START], eos_token_id=words[END],
        num_attention_heads=2, num_hidden_layers=4, **values,
    )  # fmt: skip


def parts(text, weight=1.0):
    """Texts and weights, for the notation that the prompts above use."""
    found, depth, start = [], 0, 0
    plain = lambda text: text.replace("\\(", "(").replace("\\)", ")")
    for match in re.finditer(r"(?<!\\)[()]", text):
        if match[0] == "(":
            if depth == 0:
                found.append((plain(text[start : match.start()]), weight))
                start = match.end()
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                inner = text[start : match.start()]
                number = re.fullmatch(r"(.+):(-?[\d.]+)", inner)
                found += parts(number[1], float(number[2])) if number else parts(inner, weight * 1.1)
                start = match.end()
    return [part for part in [*found, (plain(text[start:]), weight)] if part[0]]


def chunked(tokenizer, text):
    """Chunks of 75 tokens with their weights: words of fewer than 8 tokens stay whole."""
    chunks = [[]]
    for part, weight in parts(text):
        for word in part.split():
            ids = [(id, weight) for id in tokenizer(word)["input_ids"][1:-1]]
            while ids:
                left = 75 - len(chunks[-1])
                taken = len(ids) if len(ids) <= left else left if len(ids) >= 8 else 0
                chunks[-1] += ids[:taken]
                ids = ids[taken:]
                if ids:
                    chunks.append([])
    return chunks


def encoded(model, chunks, around, padding, skip):
    """Weighted states of each chunk, and their vectors."""

    def states(chunk):
        ids = [around[0], *[id for id, _ in chunk], around[1]]
        with torch.no_grad():
            out = model(torch.tensor([ids + [padding] * (77 - len(ids))]), output_hidden_states=True)
        return out.hidden_states[-skip][0], out[0]

    empty, results = states([])[0], []
    for chunk in chunks:
        z, pooled = states(chunk)
        weights = torch.ones(77, 1)
        weights[1 : len(chunk) + 1, 0] = torch.tensor([weight for _, weight in chunk])
        if (weights != 1).any():
            weighted = (z - empty) * weights + empty
            z = weighted * (z.mean() / weighted.mean())
        results.append((z, pooled))
    return results


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    generator = torch.Generator().manual_seed(11)
    folder = OUT / "model"
    # The second one pads with the first word, "!".
    tokenizers = [tokenizer(folder / "tokenizer"), tokenizer(folder / "tokenizer_2", pad_token="!")]
    words = vocabulary(MERGES.read_text().splitlines()[1 : NUMBER_OF_MERGES + 1])
    small = CLIPTextModel(text_config(words, hidden_size=24, intermediate_size=40, hidden_act="quick_gelu"))
    large = CLIPTextModelWithProjection(
        text_config(words, hidden_size=32, intermediate_size=48, hidden_act="gelu", projection_dim=20)
    )
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2), attention_head_dim=(2, 4), use_linear_projection=True, cross_attention_dim=56,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 20,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, scaling_factor=0.13025,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, sample_size=64,
    )  # fmt: skip
    small, large, unet, vae = (randomise(model, generator) for model in (small, large, unet, vae))
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    pipeline = StableDiffusionXLPipeline(vae, small, large, *tokenizers, unet, scheduler, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    # Weights are stored as published: without the prefix that transformers 5 leaves out, and in bfloat16.
    pipeline.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    pipeline.to(torch.float32)
    for name in ("tokenizer", "tokenizer_2"):
        for file in (folder / name).iterdir():
            if file.name not in ("vocab.json", "merges.txt"):
                file.unlink()

    golden, tensors = {"prompts": [], "pictures": []}, {}
    around = words[START], words[END]
    for i, (texts, counted, skip) in enumerate(PROMPTS):
        states, pooled = [], []
        for text in texts:
            chunks = chunked(tokenizers[0], text)
            l = encoded(small, chunks, around, words[END], skip)
            g = encoded(large, chunks, around, 0, skip)
            states += [torch.cat([a, b], 1) for (a, _), (b, _) in zip(l, g, strict=True)]
            pooled.append(g[0][1])
        tensors[f"prompt.{i}.states"] = torch.cat(states)[None]
        tensors[f"prompt.{i}.pooled"] = torch.stack(pooled[:counted]).sum(0)
        golden["prompts"].append({"texts": texts, "counted": counted, "skip": skip})

    for i, picture in enumerate(PICTURES):
        if picture["sampler"] == "euler":
            scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
        else:
            scheduler = DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True, final_sigmas_type="zero")
        pipeline.scheduler = scheduler
        scheduler.set_timesteps(picture["steps"])
        width, height = picture["size"]
        noise = torch.randn(1, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(picture["seed"]))
        # Fooocus scales by sqrt(1 + sigma^2); diffusers by `init_noise_sigma`. DPMSolver keeps latents as they are at each
        # noise level's variance: there the two mean the same.
        if picture["sampler"] == "euler":
            noise *= (1 + float(scheduler.sigmas[0]) ** 2) ** 0.5 / float(scheduler.init_noise_sigma)
        how = dict(
            prompt=picture["prompt"], negative_prompt=picture["negative"], guidance_scale=picture["cfg"], output_type="pt",
            original_size=(height, width), target_size=(height, width),
        )  # fmt: skip
        if "denoise" in picture:
            # Of twice as many steps, the second half. Latents are handed over as a picture: its mode, no sample.
            start = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
            tensors[f"start.{i}"] = start
            with torch.no_grad():
                latents = vae.encode(start.permute(2, 0, 1)[None] / 127.5 - 1).latent_dist.mode() * vae.config.scaling_factor
            steps = round(picture["steps"] / picture["denoise"])
            pipeline.scheduler.set_timesteps(steps)
            again = StableDiffusionXLImg2ImgPipeline(**pipeline.components, add_watermarker=False)
            again.set_progress_bar_config(disable=True)
            seeded = torch.Generator().manual_seed(picture["seed"])
            values = again(
                image=latents, strength=picture["denoise"], num_inference_steps=steps, generator=seeded, **how
            ).images[0]
            seeded = torch.Generator().manual_seed(picture["seed"])
            start = dict(image=latents.bfloat16(), strength=picture["denoise"], num_inference_steps=steps, generator=seeded)
        else:
            values = pipeline(width=width, height=height, latents=noise, num_inference_steps=picture["steps"], **how).images[0]
            again = pipeline
            start = dict(width=width, height=height, latents=noise.bfloat16(), num_inference_steps=picture["steps"])
        networks = (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)
        for network in networks:
            network.to(torch.bfloat16)
        low = again(**start, **how | dict(output_type="latent")).images.float()
        for network in networks:
            network.to(torch.float32)
        with torch.no_grad():
            low = (vae.decode(low / vae.config.scaling_factor).sample[0] / 2 + 0.5).clamp(0, 1)
        picture = picture | dict(bf16=round((low - values).abs().mean().item(), 6))
        tensors[f"picture.{i}"] = values.permute(1, 2, 0).contiguous()
        print(i, values.mean().item(), values.std().item(), values.min().item(), values.max().item())
        golden["pictures"].append(picture)
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in tensors.items()}, OUT / "golden.safetensors")
    (OUT / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
