"""Writes `generate-single-file/`: one file with the networks of `generate-networks/`, `generate-text/` and `generate-unet/`
under the names that Stability's own code gives them.

`sdxl.safetensors` has the layout of SDXL's published checkpoints: `model.diffusion_model.*`, `first_stage_model.*`,
`conditioner.embedders.0.transformer.*` (CLIP) and `conditioner.embedders.1.model.*` (OpenCLIP), and what else such files have
and no network takes. Names are made here by undoing the rules of diffusers' `single_file_utils.py`; before anything is written,
diffusers' own converters must make the same tensors out of it that the folders have.

    pip install -r requirements.txt && python make_generate_single_file.py
"""

import json
import pathlib
import re
import shutil
import types

import torch
from diffusers.loaders import single_file_utils as published
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "generate-single-file"
UNET, VAE, TEXT = HERE / "generate-unet/refiner", HERE / "generate-networks/vae", HERE / "generate-text"
WEIGHTS = "diffusion_pytorch_model.safetensors"
LDM = published.DIFFUSERS_TO_LDM_MAPPING

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def unet(tensors, config):
    each = config["layers_per_block"] + 1
    ends = LDM["unet"]["layers"] | LDM["unet"]["addition_embed_type"]
    attends = {key.rsplit(".attentions", 1)[0] for key in tensors if ".attentions." in key}
    renamed = {}
    for name, tensor in tensors.items():
        if name in ends:
            renamed[ends[name]] = tensor
            continue
        match = re.fullmatch(r"(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?(\w+?)\.(\d+)\.(.*)", name)
        side, stage, kind, i, part = match.groups()
        stage, i = int(stage or 0), int(i)
        if kind == "resnets":
            layer, value = part.split(".")
            part = f"{RESNET[layer]}.{value}"
        if side == "mid_block":
            place = f"middle_block.{2 * i if kind == 'resnets' else 1}"
        elif side == "down_blocks":
            number = 1 + stage * each + (each - 1 if kind == "downsamplers" else i)
            place = f"input_blocks.{number}.{int(kind == 'attentions')}"
            part = part.replace("conv.", "op.") if kind == "downsamplers" else part
        else:
            number = stage * each + (each - 1 if kind == "upsamplers" else i)
            behind = 1 + (f"up_blocks.{stage}" in attends)
            place = f"output_blocks.{number}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': behind}[kind]}"
        renamed[f"{place}.{part}"] = tensor
    return renamed


def vae(tensors, config):
    stages = len(config["block_out_channels"])
    rules = [
        (r"conv_norm_out", "norm_out"), (r"conv_shortcut", "nin_shortcut"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"), (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_(\w)", r"mid.attn_1.\1"),
        (r"mid_block\.resnets\.(\d+)", lambda match: f"mid.block_{int(match[1]) + 1}"),
        (r"down_blocks\.(\d+)\.resnets", r"down.\1.block"), (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d+)\.resnets", lambda match: f"up.{stages - 1 - int(match[1])}.block"),
        (r"up_blocks\.(\d+)\.upsamplers\.0", lambda match: f"up.{stages - 1 - int(match[1])}.upsample"),
    ]  # fmt: skip
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in rules:
            name = re.sub(old, new, name)
        is_pixel = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        renamed[name] = tensor[:, :, None, None] if is_pixel else tensor
    return renamed


def open_clip(tensors):
    renamed = {}
    for name, tensor in tensors.items():
        if name in LDM["openclip"]["layers"]:
            renamed[LDM["openclip"]["layers"][name]] = tensor.T if name == "text_projection.weight" else tensor
            continue
        if match := re.fullmatch(r"(.*self_attn)\.q_proj\.(\w+)", name):
            tensor = torch.cat([tensors[f"{match[1]}.{part}_proj.{match[2]}"] for part in "qkv"])
            name = f"{match[1]}.in_proj_{match[2]}"
        elif re.search(r"\.[kv]_proj\.", name):
            continue
        for new, old in LDM["openclip"]["transformer"].items():
            name = name.replace(new, old)
        renamed[f"transformer.{name}"] = tensor
    return renamed


def same(found, expected):
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def main():
    configs = [json.loads((folder / "config.json").read_text()) for folder in (UNET, VAE)]
    networks = [load_file(file) for file in (UNET / WEIGHTS, VAE / WEIGHTS, TEXT / "l.safetensors", TEXT / "g.safetensors")]
    parts = {
        "model.diffusion_model.": unet(networks[0], configs[0]),
        "first_stage_model.": vae(networks[1], configs[1]),
        "conditioner.embedders.0.transformer.": networks[2],
        "conditioner.embedders.1.model.": open_clip(networks[3]),
    }
    tensors = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}
    # The converter cuts queries, keys and values at the length of the projection, which is the width in published models.
    text = types.SimpleNamespace(config=types.SimpleNamespace(hidden_size=networks[3]["text_model.final_layer_norm.weight"].numel()))
    prefix = "conditioner.embedders.1.model."
    projected = {name: tensor for name, tensor in tensors.items() if name != prefix + "text_projection"}
    converted = published.convert_open_clip_checkpoint(text, projected, prefix)
    same(converted | {"text_projection.weight": tensors[prefix + "text_projection"].T}, networks[3])
    same(published.convert_ldm_unet_checkpoint(tensors, configs[0]), networks[0])
    same(published.convert_ldm_vae_checkpoint(tensors, configs[1]), networks[1])
    same(published.convert_ldm_clip_checkpoint(tensors), networks[2])
    tensors |= {
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(9)[None],
        "conditioner.embedders.1.model.logit_scale": torch.tensor(4.6),
        "denoiser.sigmas": torch.linspace(0, 1, 4),
    }
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, OUT / "sdxl.safetensors")
    (OUT / "sdxl.safetensors").chmod(0o644)
    print(len(tensors), (OUT / "sdxl.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
