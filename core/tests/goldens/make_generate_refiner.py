"""Writes `generate-refiner/`: a small refiner for the model of `generate-pipeline/`, and pictures that both make.

- `model/unet/` is the refiner's network, as published: it reads what the larger text encoder says, and is told a score.
- `golden.json` has pictures by their options, `golden.safetensors` `picture.i`, their values, `(h, w, 3)` from 0 to 1. The steps are
  Euler's, of which the first `switch` are the model's and all others the refiner's, in f32. Both networks are told the nearest whole
  time, of two that are as near the larger one, where diffusers tells them that between two: networks have seen no other.

    pip install -r requirements.txt && python make_generate_refiner.py
"""

import json
import pathlib
import shutil

import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from make_generate_lora import MODEL, pipeline_of
from make_generate_pipeline import BETAS
from make_generate_text import randomise
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent / "generate-refiner"
PICTURES = [
    dict(prompt="a red cat", negative="bad", steps=10, cfg=5.0, seed=3, size=(64, 64), switch=5),
    dict(prompt="the sea", negative="", steps=4, cfg=1.0, seed=4, size=(128, 64), switch=3),
    # Times between those of training, and one in the middle of two.
    dict(prompt="a red cat", negative="bad", steps=9, cfg=5.0, seed=5, size=(64, 64), switch=5),
]
SCORES = {"positive": 6.0, "negative": 2.5}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    generator = torch.Generator().manual_seed(41)
    refiner = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1, attention_head_dim=(2, 2), use_linear_projection=True, cross_attention_dim=32,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=5 * 8 + 20,
    )  # fmt: skip
    refiner = randomise(refiner, generator)
    refiner.to(torch.bfloat16).save_pretrained(OUT / "model" / "unet")
    refiner = refiner.to(torch.float32)
    pipeline = pipeline_of(MODEL)
    tensors = {}
    for i, picture in enumerate(PICTURES):
        width, height = picture["size"]
        sides = ["positive"] + ["negative"] * (picture["cfg"] != 1)
        texts = dict(positive=picture["prompt"], negative=picture["negative"])
        encoded = {
            side: [pipeline.encode_prompt(texts[side], do_classifier_free_guidance=False)[k] for k in (0, 2)] for side in sides
        }
        scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
        scheduler.set_timesteps(picture["steps"])
        sigmas = scheduler.sigmas
        x = torch.randn(1, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(picture["seed"]))
        x *= (1 + sigmas[0] ** 2) ** 0.5
        for step, time in enumerate(scheduler.timesteps):
            sigma, answers = sigmas[step], {}
            time = torch.floor(time + 0.5)
            for side in sides:
                text, pooled = encoded[side]
                scaled = x / (1 + sigma**2) ** 0.5
                with torch.no_grad():
                    if step < picture["switch"]:
                        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
                        network = pipeline.unet
                    else:
                        sizes = torch.tensor([[height, width, 0, 0, SCORES[side]]], dtype=torch.float32)
                        network, text = refiner, text[:, :, -32:]
                    added = {"text_embeds": pooled, "time_ids": sizes}
                    answers[side] = network(scaled, time, text, added_cond_kwargs=added).sample
            noise = answers["positive"]
            if "negative" in answers:
                noise = answers["negative"] + picture["cfg"] * (noise - answers["negative"])
            x = x + noise * (sigmas[step + 1] - sigma)
        with torch.no_grad():
            values = pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample[0]
        tensors[f"picture.{i}"] = (values / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).contiguous()
        print(i, tensors[f"picture.{i}"].mean().item(), tensors[f"picture.{i}"].std().item())
    save_file(tensors, OUT / "golden.safetensors")
    (OUT / "golden.json").write_text(json.dumps(PICTURES, indent=1) + "\n")
    for file in OUT.rglob("*.*"):
        file.chmod(0o644)


if __name__ == "__main__":
    main()
