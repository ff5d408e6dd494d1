"""Writes `edit-formats/`: small files in the formats that edit models are published in, and what is in them.

- `types.gguf` has one tensor of each type of numbers that GGUF files have, `types.safetensors` the same in f32, both by
  the `gguf` package. Where it cannot quantise (K types), blocks are random bytes.
- `fp8.safetensors` has every value of both formats of one byte; `fp8_values.safetensors` what torch says they are.
- `plain.safetensors`, `legacy.safetensors`, `mixed.safetensors` and `noted.safetensors` are a layer or two in the fp8 spellings
  of ComfyUI. `<name>_values.safetensors` have the weights, multiplied in f32 and rounded to bfloat16.
- `vae_names.json`: names of Wan's for the autoencoder of the published size, and what diffusers makes of them.
- `lora_<case>.safetensors`: LoRAs for the transformer in `edit-networks/`, one for each spelling of keys;
  `lora.safetensors` has, under `<case>.<weight>`, the weights after diffusers and peft merged them in f32.

    pip install -r requirements.txt && python make_edit_formats.py
"""

import json
import pathlib

import gguf
import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from diffusers.loaders.lora_pipeline import QwenImageLoraLoaderMixin
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "edit-formats"


def gguf_types():
    random = np.random.default_rng(1)
    types = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(OUT / "types.gguf", "qwen_image")
    writer.add_string("general.name", "types")
    writer.add_array("test.words", ["a", "b"])
    writer.add_array("test.numbers", [1, 2, 3])
    writer.add_bool("test.flag", True)
    truth = {}

    def add(name, data, kind):
        writer.add_tensor(name, data, raw_dtype=kind)
        truth[name] = torch.from_numpy(gguf.quants.dequantize(data, kind).astype(np.float32).copy())

    values = (random.standard_normal((2, 64)) * 0.1).astype(np.float32)
    for kind in (types.F32, types.F16, types.BF16, types.Q4_0, types.Q4_1, types.Q5_0, types.Q5_1, types.Q8_0):
        add(kind.name, gguf.quants.quantize(values, kind), kind)
    for kind in (types.Q2_K, types.Q3_K, types.Q4_K, types.Q5_K, types.Q6_K):
        _, size = gguf.GGML_QUANT_SIZES[kind]
        # Scales are halves; those that are no numbers or huge would hide everything else.
        data = random.integers(0, 256, (2, size), dtype=np.uint8)
        halves = {types.Q2_K: (-4, -2), types.Q3_K: (-2,), types.Q4_K: (0, 2), types.Q5_K: (0, 2), types.Q6_K: (-2,)}
        for place in halves[kind]:
            for row in data:
                place = place % size
                row[place : place + 2] = np.float16(random.uniform(0.01, 0.1)).reshape(1).view(np.uint8)
        add(kind.name, data, kind)
    # A block of Q8_K: its scale in f32, 256 numbers, and their sums.
    data = random.integers(0, 256, (2, 4 + 256 + 32), dtype=np.uint8)
    for row in data:
        row[:4] = np.float32(random.uniform(0.01, 0.1)).reshape(1).view(np.uint8)
    writer.add_tensor("Q8_K", data, raw_dtype=types.Q8_K)
    numbers = [row[:4].view(np.float32) * row[4:260].view(np.int8).astype(np.float32) for row in data]
    truth["Q8_K"] = torch.from_numpy(np.stack(numbers))
    add("bias", np.arange(5, dtype=np.float32) / 3, types.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file({name: tensor.contiguous() for name, tensor in truth.items()}, OUT / "types.safetensors")


def fp8():
    every = torch.arange(256, dtype=torch.uint8)
    kinds = dict(e4m3=torch.float8_e4m3fn, e5m2=torch.float8_e5m2)
    values = {name: every.clone().view(kind) for name, kind in kinds.items()}
    save_file(values, OUT / "fp8.safetensors")
    save_file({name: value.float() for name, value in values.items()}, OUT / "fp8_values.safetensors")

    generator = torch.Generator().manual_seed(2)
    weight = lambda: torch.randn(6, 8, generator=generator)
    bias = torch.randn(6, generator=generator).bfloat16()
    e4m3, e5m2 = kinds["e4m3"], kinds["e5m2"]
    a, b, c = weight(), weight(), weight()
    scale = lambda tensor, kind: tensor.abs().max() / torch.finfo(kind).max
    stored = lambda tensor, kind: (tensor / scale(tensor, kind)).to(kind)
    scaled = lambda tensor, kind: (stored(tensor, kind).float() * scale(tensor, kind)).bfloat16()
    note = lambda **what: torch.tensor(list(json.dumps(what).encode()), dtype=torch.uint8)

    save_file({"a.weight": a.to(e4m3), "a.bias": bias, "b.weight": b.to(e5m2)}, OUT / "plain.safetensors")
    save_file(
        {"a.weight": a.to(e4m3).bfloat16(), "a.bias": bias, "b.weight": b.to(e5m2).bfloat16()},
        OUT / "plain_values.safetensors",
    )
    legacy = {
        "scaled_fp8": torch.zeros(0, dtype=e4m3),
        "a.weight": stored(a, e4m3),
        "a.bias": bias,
        "a.scale_weight": scale(a, e4m3).reshape(1),
        "a.scale_input": torch.ones(1),
        "b.weight": stored(b, e5m2),
        "b.scale_weight": scale(b, e5m2),
        "c.weight": c.bfloat16(),
    }
    values = {"a.weight": scaled(a, e4m3), "a.bias": bias, "b.weight": scaled(b, e5m2), "c.weight": c.bfloat16()}
    save_file(legacy, OUT / "legacy.safetensors")
    save_file(values, OUT / "legacy_values.safetensors")
    mixed = {
        "model.diffusion_model.transformer_blocks.0.a.weight": stored(a, e4m3),
        "model.diffusion_model.transformer_blocks.0.a.bias": bias,
        "model.diffusion_model.transformer_blocks.0.a.weight_scale": scale(a, e4m3),
        "model.diffusion_model.transformer_blocks.0.a.input_scale": torch.tensor(0.5),
        "model.diffusion_model.transformer_blocks.0.a.comfy_quant": note(format="float8_e4m3fn", full_precision_matrix_mult=True),
        "model.diffusion_model.transformer_blocks.1.c.weight": c.bfloat16(),
        "model.diffusion_model.__index_timestep_zero__": torch.zeros(0),
    }
    values = {
        "transformer_blocks.0.a.weight": scaled(a, e4m3),
        "transformer_blocks.0.a.bias": bias,
        "transformer_blocks.1.c.weight": c.bfloat16(),
    }
    save_file(mixed, OUT / "mixed.safetensors")
    save_file(values, OUT / "mixed_values.safetensors")
    save_file(
        {"a.weight": stored(a, e4m3), "a.bias": bias, "a.weight_scale": scale(a, e4m3)},
        OUT / "noted.safetensors",
        metadata={"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": {"a": {"format": "float8_e4m3fn"}}})},
    )
    save_file({"a.weight": scaled(a, e4m3), "a.bias": bias}, OUT / "noted_values.safetensors")


BLOCK = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6", "conv_shortcut": "shortcut"}


def wan_name(name):
    """The name in Wan's own code of a tensor of diffusers; what diffusers makes of it is checked below."""
    *layer, tensor = name.split(".")
    if len(layer) == 1:
        return {"quant_conv": "conv1", "post_quant_conv": "conv2"}[layer[0]] + "." + tensor
    half, *layer = layer
    match layer:
        case ["conv_in"]:
            layer = "conv1"
        case ["norm_out"]:
            layer = "head.0"
        case ["conv_out"]:
            layer = "head.2"
        case ["mid_block", "resnets", block, part]:
            layer = f"middle.{2 * int(block)}.{BLOCK[part]}"
        case ["mid_block", "attentions", "0", part]:
            layer = f"middle.1.{part}"
        case ["down_blocks", number, *part]:
            part = ".".join(part)
            layer = f"downsamples.{number}.{BLOCK.get(part, part)}"
        case ["up_blocks", stage, "resnets", block, part]:
            layer = f"upsamples.{4 * int(stage) + int(block)}.{BLOCK[part]}"
        case ["up_blocks", stage, "upsamplers", "0", *part]:
            layer = f"upsamples.{4 * int(stage) + 3}.{'.'.join(part)}"
    return f"{half}.{layer}.{tensor}"


def vae_names():
    with torch.device("meta"):
        names = list(AutoencoderKLQwenImage().state_dict())
    checkpoint = {wan_name(name): name for name in names}
    converted = convert_wan_vae_to_diffusers(dict(checkpoint))
    wrong = [(new, old) for new, old in converted.items() if new != old]
    assert not wrong and len(converted) == len(names) == len(checkpoint), wrong
    (OUT / "vae_names.json").write_text(json.dumps(checkpoint, indent=0) + "\n")


LAYERS = ["transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.add_k_proj", "txt_in"]


def lora():
    base = load_file(HERE / "edit-networks" / "transformer" / "diffusion_pytorch_model.safetensors")
    generator = torch.Generator().manual_seed(3)
    rank = 4
    halves = {}
    for layer in LAYERS:
        outputs, inputs = base[f"{layer}.weight"].shape
        halves[layer] = (torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator) * 0.3)
    flat = lambda layer: "lora_unet_" + layer.replace(".", "_")

    def keys(name=lambda layer: layer, down="lora_down.weight", up="lora_up.weight", dtype=torch.float32, alpha=None):
        tensors = {}
        for layer, (a, b) in halves.items():
            tensors[f"{name(layer)}.{down}"] = a.to(dtype)
            tensors[f"{name(layer)}.{up}"] = b.to(dtype)
            if alpha is not None:
                tensors[f"{name(layer)}.alpha"] = torch.tensor(alpha, dtype=dtype)
        return tensors

    peft = dict(down="lora_A.weight", up="lora_B.weight")
    notes = dict(r=rank, lora_alpha=6, alpha_pattern={"txt_in": 3}, rank_pattern={}, use_dora=False, use_rslora=False)
    notes = {f"transformer.{key}": value for key, value in (notes | dict(target_modules=LAYERS)).items()}
    rooted = notes | {"transformer.use_rslora": True, "transformer.alpha_pattern": {}}
    cases = {
        "bare": (keys(alpha=3.0), None, 1.0),
        "bare_bf16": (keys(alpha=3.0, dtype=torch.bfloat16), None, 0.7),
        "tiny_alpha_f16": (keys(alpha=0.011, dtype=torch.float16), None, 1.0),
        "no_alpha": (keys(lambda layer: f"diffusion_model.{layer}"), None, 1.0),
        "diffusion_model": (keys(lambda layer: f"diffusion_model.{layer}", alpha=2.0), None, -0.5),
        "diffusion_model_peft": (keys(lambda layer: f"diffusion_model.{layer}", alpha=5.0, **peft), None, 1.0),
        "flat": (keys(flat, alpha=2.0), None, 1.0),
        "peft": (keys(lambda layer: f"transformer.{layer}", **peft), None, 1.0),
        "peft_default": (keys(down="lora_A.default.weight", up="lora_B.default.weight"), None, 1.0),
        "noted": (keys(lambda layer: f"transformer.{layer}", **peft), notes, 0.5),
        "noted_root": (keys(lambda layer: f"transformer.{layer}", **peft), rooted, 1.0),
    }
    merged = {}
    for case, (tensors, noted, scale) in cases.items():
        path = OUT / f"lora_{case}.safetensors"
        metadata = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(noted)} if noted else {})
        save_file(tensors, path, metadata=metadata)
        model = QwenImageTransformer2DModel.from_pretrained(HERE / "edit-networks" / "transformer", torch_dtype=torch.float32)
        state, metadata = QwenImageLoraLoaderMixin.lora_state_dict(str(path), return_lora_metadata=True)
        QwenImageLoraLoaderMixin.load_lora_into_transformer(
            state, model, adapter_name="a", metadata=metadata, low_cpu_mem_usage=False
        )
        model.set_adapters(["a"], [scale])
        dtypes = {value.dtype for name, value in model.state_dict().items() if "lora" in name}
        model.fuse_lora()
        state = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
        for layer in LAYERS:
            value = state[f"{layer}.weight"]
            merged[f"{case}.{layer}.weight"] = value.clone().contiguous()
            change = (value - base[f"{layer}.weight"].float()).std()
            print(f"{case}: {layer} changed by {change:.4f}, adapters in {dtypes}")
    save_file(merged, OUT / "lora.safetensors")
    (OUT / "lora_scales.json").write_text(json.dumps({case: scale for case, (_, _, scale) in cases.items()}, indent=1) + "\n")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    gguf_types()
    fp8()
    vae_names()
    lora()
