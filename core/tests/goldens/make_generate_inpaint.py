"""Writes `generate-inpaint/`: an inpaint engine as Fooocus publishes them, for the model of `generate-pipeline/`, and what it makes.

- `head.pth` and `patch.fooocus.patch` are the files of the engine: a convolution, and for weights of the network bytes with the
  numbers that 0 and 255 stand for, under the names of latent diffusion. Both are archives of PyTorch that were packed again.
- `weights.safetensors` has every seventh value of the weights that the patch changes, after that.
- `golden.json` has pictures by their options. `golden.safetensors` has `picture.i` to start from and `mask.i`, bytes, `features.i`,
  what the head gives `(h, w, c)`, and `made.i`, values of the network's picture from 0 to 1, `(h, w, 3)`. The steps are Euler's; the
  first ones are made with the patch and the head, the last ones without, in f32.

    pip install -r requirements.txt && python make_generate_inpaint.py
"""

import json
import pathlib
import re
import shutil

import torch
from diffusers import EulerDiscreteScheduler
from make_generate_lora import MODEL, pipeline_of
from make_generate_pipeline import BETAS
from make_generate_upscale import deflated
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent / "generate-inpaint"
# Steps of a part of the noise levels. Times are those of training: a ninth of 999 apart.
PICTURES = [
    dict(prompt="a red cat", negative="bad", steps=5, cfg=3.0, seed=3, strength=0.5, rows=[16, 40], columns=[8, 33]),
    dict(prompt="the sea", negative="", steps=5, cfg=1.0, seed=2**32 - 1, strength=0.5, rows=[0, 64], columns=[30, 64]),
]
SIDE = 64
EVERY = 7
PATCHED = 0.8

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
PLACES = [
    (r"conv_in\.", "input_blocks.0.0."),
    (r"down_blocks\.0\.resnets\.0\.", "input_blocks.1.0."),
    (r"down_blocks\.0\.downsamplers\.0\.conv\.", "input_blocks.2.0.op."),
    (r"down_blocks\.1\.resnets\.0\.", "input_blocks.3.0."),
    (r"down_blocks\.1\.attentions\.0\.", "input_blocks.3.1."),
    (r"mid_block\.resnets\.0\.", "middle_block.0."),
    (r"mid_block\.attentions\.0\.", "middle_block.1."),
    (r"mid_block\.resnets\.1\.", "middle_block.2."),
    (r"up_blocks\.0\.resnets\.(\d)\.", r"output_blocks.\1.0."),
    (r"up_blocks\.0\.attentions\.(\d)\.", r"output_blocks.\1.1."),
    (r"up_blocks\.0\.upsamplers\.0\.conv\.", "output_blocks.1.2.conv."),
    (r"up_blocks\.1\.resnets\.0\.", "output_blocks.2.0."),
    (r"up_blocks\.1\.resnets\.1\.", "output_blocks.3.0."),
    (r"time_embedding\.linear_1\.", "time_embed.0."),
    (r"time_embedding\.linear_2\.", "time_embed.2."),
    (r"add_embedding\.linear_1\.", "label_emb.0.0."),
    (r"add_embedding\.linear_2\.", "label_emb.0.2."),
    (r"conv_norm_out\.", "out.0."),
    (r"conv_out\.", "out.2."),
]


def latent_diffusion(name):
    """The name of a tensor of this network in latent diffusion."""
    for pattern, place in PLACES:
        if match := re.match(pattern, name):
            rest = name[match.end() :]
            if "resnets" in pattern:
                layer, tensor = rest.rsplit(".", 1)
                rest = f"{RESNET[layer]}.{tensor}"
            return match.expand(place) + rest
    raise KeyError(name)


def quantised(change):
    least, most = change.min(), change.max()
    bytes = ((change - least) / (most - least) * 255).round().to(torch.uint8)
    return bytes, least, most


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    generator = torch.Generator().manual_seed(53)
    pipeline = pipeline_of(MODEL)
    unet = pipeline.unet
    plain = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    # All but every fifth, matrices, convolutions, norms and biases.
    changed = [name for i, name in enumerate(plain) if i % 5]
    patch, patched = {}, {}
    for name in changed:
        change = 0.3 * plain[name].std() * torch.randn(plain[name].shape, generator=generator)
        patch[f"diffusion_model.{latent_diffusion(name)}"] = parts = quantised(change)
        patched[name] = plain[name] + (parts[0].float() / 255.0 * (parts[2] - parts[1]) + parts[1])
    head = torch.randn(unet.config.block_out_channels[0], 5, 3, 3, generator=generator) / 45**0.5
    deflated(patch, OUT / "patch.fooocus.patch")
    deflated({"head": head}, OUT / "head.pth")
    save_file({name: tensor.flatten()[::EVERY].contiguous() for name, tensor in patched.items()}, OUT / "weights.safetensors")

    onto = {}
    unet.conv_in.register_forward_hook(lambda module, inputs, output: output + onto["features"] if onto else None)
    scale = pipeline.vae.config.scaling_factor
    tensors = {}
    for i, how in enumerate(PICTURES):
        picture = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        mask = torch.zeros(SIDE, SIDE)
        mask[slice(*how["rows"]), slice(*how["columns"])] = 1
        pixels = picture.permute(2, 0, 1)[None] / 127.5 - 1
        encode = lambda pixels: pipeline.vae.encode(pixels).latent_dist.mode() * scale
        latent, around = encode(pixels), encode(pixels * (1 - mask))
        pooled = torch.nn.functional.max_pool2d(mask[None, None], 8)
        seen = torch.nn.functional.pad(torch.cat([pooled, around], 1), (1, 1, 1, 1), "replicate")
        features = torch.nn.functional.conv2d(seen, head)
        sides = ["positive"] + ["negative"] * (how["cfg"] != 1)
        encoded = {
            side: [pipeline.encode_prompt(text, do_classifier_free_guidance=False)[k] for k in (0, 2)]
            for side, text in zip(sides, [how["prompt"], how["negative"]], strict=False)
        }
        scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
        scheduler.set_timesteps(int(how["steps"] / how["strength"]))
        sigmas, times = scheduler.sigmas[-how["steps"] - 1 :], scheduler.timesteps[-how["steps"] :]
        shape = (1, 4, SIDE // 8, SIDE // 8)
        x = latent + torch.randn(shape, generator=torch.Generator().manual_seed(how["seed"])) * sigmas[0]
        again = torch.Generator().manual_seed(how["seed"] + 1)
        sizes = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]], dtype=torch.float32)
        for step, time in enumerate(times):
            sigma, answers = sigmas[step], {}
            is_patched = step < round(PATCHED * how["steps"])
            unet.load_state_dict({**plain, **patched} if is_patched else plain)
            onto.clear()
            if is_patched:
                onto["features"] = features
            shown = x * pooled + (latent + torch.randn(shape, generator=again) * sigma) * (1 - pooled)
            for side in sides:
                text, vector = encoded[side]
                added = {"text_embeds": vector, "time_ids": sizes}
                answers[side] = unet(shown / (1 + sigma**2) ** 0.5, time, text, added_cond_kwargs=added).sample
            noise = answers["positive"]
            if "negative" in answers:
                noise = answers["negative"] + how["cfg"] * (noise - answers["negative"])
            clean = (shown - noise * sigma) * pooled + latent * (1 - pooled)
            x = x + (x - clean) / sigma * (sigmas[step + 1] - sigma)
        made = (pipeline.vae.decode(x / scale).sample[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
        tensors |= {f"picture.{i}": picture, f"mask.{i}": (mask * 255).byte(), f"made.{i}": made.contiguous()}
        tensors[f"features.{i}"] = features[0].permute(1, 2, 0).contiguous()
        print(i, f"{made.mean():.3f} {made.std():.3f}")
    save_file(tensors, OUT / "golden.safetensors")
    (OUT / "golden.json").write_text(json.dumps(PICTURES, indent=1) + "\n")
    for file in OUT.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
