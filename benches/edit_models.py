"""Writes folders of edit models in the layout in which Qwen-Image-Edit-2511 is published.

    python benches/edit_models.py FOLDER [--layers 60] [--text-layers 28] [--vision-layers 32] [--words 151643]
                                         [--dtype bf16] [--random]

Without `--random` the files are sparse: their headers are right, their tensors are holes, so that the 57.7 GB of the
published size take no disk. With it, every parameter has a random value that bfloat16 has. Names and shapes are those of
the classes in diffusers and transformers, made without memory; the text encoder's are the ones that its files have.
"""

import argparse
import json
import os
import pathlib
import struct
import sys

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from tokenizers import AddedToken, Tokenizer, models
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDENS = ROOT / "core/tests/goldens"
sys.path.insert(0, str(GOLDENS))
from make_edit import ADDED, PUBLISHED, SPECIAL  # noqa: E402

TRANSFORMER = dict(
    _class_name="QwenImageTransformer2DModel", patch_size=2, in_channels=64, out_channels=16, num_layers=60,
    attention_head_dim=128, num_attention_heads=24, joint_attention_dim=3584, axes_dims_rope=[16, 56, 56],
    guidance_embeds=False, zero_cond_t=True,
)  # fmt: skip
TEXT = dict(
    architectures=["Qwen2_5_VLForConditionalGeneration"], model_type="qwen2_5_vl", hidden_act="silu", hidden_size=3584,
    intermediate_size=18944, num_attention_heads=28, num_hidden_layers=28, num_key_value_heads=4, rms_norm_eps=1e-6,
    rope_theta=1e6, rope_scaling=dict(type="mrope", mrope_section=[16, 24, 24]), tie_word_embeddings=False,
    use_sliding_window=False, sliding_window=32768, max_window_layers=28, vocab_size=152064, torch_dtype="bfloat16",
    vision_config=dict(
        depth=32, hidden_act="silu", hidden_size=1280, intermediate_size=3420, num_heads=16, in_chans=3, out_hidden_size=3584,
        patch_size=14, spatial_merge_size=2, spatial_patch_size=14, window_size=112, fullatt_block_indexes=[7, 15, 23, 31],
        tokens_per_second=2, temporal_patch_size=2,
    ),
)  # fmt: skip
VAE = dict(
    _class_name="AutoencoderKLQwenImage", base_dim=96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
    temperal_downsample=[False, True, True], dropout=0.0,
    latents_mean=[-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632,
                  -0.1922, -0.9497, 0.2503, -0.2921],
    latents_std=[2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382,
                 1.1253, 2.8251, 1.9160],
)  # fmt: skip
# In place of the published widths, where only the autoencoder matters.
NARROW = dict(num_attention_heads=2, attention_head_dim=32, joint_attention_dim=64, axes_dims_rope=[8, 12, 12])
NARROW_TEXT = dict(
    hidden_size=64, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2,
    rope_scaling=dict(type="mrope", mrope_section=[2, 3, 3]),
)  # fmt: skip
NARROW_VISION = dict(hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=64)
# Words of the published vocabulary, and what was added to it.
WORDS = 151_643
LATER = ["fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep"]
DTYPES = {"bf16": ("BF16", torch.bfloat16), "f32": ("F32", torch.float32)}
# Bytes of a file, as published.
LARGEST = {"transformer": 10e9, "text_encoder": 5e9, "vae": 1e12}


def configs(layers=60, text_layers=28, vision_layers=32, words=WORDS, narrow=False, vae_dim=96):
    """The configurations, with fewer blocks or words, or narrow networks, where that is asked for."""
    transformer, text, vae = (json.loads(json.dumps(config)) for config in (TRANSFORMER, TEXT, VAE))
    vae["base_dim"] = vae_dim
    if narrow:
        transformer |= NARROW
        text |= NARROW_TEXT
        text["vision_config"] |= NARROW_VISION
    transformer["num_layers"] = layers
    text |= dict(num_hidden_layers=text_layers, vocab_size=(words + 22 + 511) // 256 * 256)
    vision = text["vision_config"]
    vision["depth"] = vision_layers
    if vision_layers < 8:
        vision["fullatt_block_indexes"] = [vision_layers - 1]
    names = ("vision_start", "vision_end", "vision", "image", "video")
    for name, number in zip(names, range(words + 9, words + 14)):
        text[f"{name}_token_id"] = number
    return transformer, text, vae


def modules(transformer, text, vae, device="meta"):
    """The parts by the name of their folder."""
    made = QwenImageTransformer2DModel, AutoencoderKLQwenImage
    plain = lambda config: {key: value for key, value in config.items() if key != "_class_name"}
    with torch.device(device):
        return {
            "transformer": made[0](**plain(transformer)),
            "text_encoder": Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(json.loads(json.dumps(text)))),
            "vae": made[1](**plain(vae)),
        }


def stored(folder, name):
    """What a parameter is called in the files."""
    if folder != "text_encoder":
        return name
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def header(tensors, dtype):
    """The beginning of a file with tensors of these shapes, and how many bytes follow."""
    entries, end = {"__metadata__": {"format": "pt"}}, 0
    size = 2 if dtype == "BF16" else 4
    for name, shape in tensors.items():
        start, end = end, end + size * shape.numel()
        entries[name] = dict(dtype=dtype, shape=list(shape), data_offsets=[start, end])
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, end


def shards(tensors, largest, size):
    """Tensors in files of at most this many bytes."""
    files, room = [{}], largest
    for name, shape in tensors.items():
        room -= size * shape.numel()
        if room < 0 and files[-1]:
            files.append({})
            room = largest - size * shape.numel()
        files[-1][name] = shape
    return files


def write_part(folder, name, module, dtype, values=None):
    """The files of one part; `values` gives the tensors that are not holes, by the parameter's name."""
    kind, torch_dtype = DTYPES[dtype]
    parameters = {stored(name, key): (key, value) for key, value in module.state_dict().items()}
    files = shards({key: value.shape for key, (_, value) in parameters.items()}, LARGEST[name], torch_dtype.itemsize)
    stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
    where = {}
    for i, tensors in enumerate(files):
        file = f"{stem}-{i + 1:05}-of-{len(files):05}.safetensors" if len(files) > 1 else f"{stem}.safetensors"
        where |= dict.fromkeys(tensors, file)
        begin, length = header(tensors, kind)
        with open(folder / name / file, "wb") as out:
            out.write(begin)
            for tensor in tensors if values else ():
                value = values(parameters[tensor][0], parameters[tensor][1]).to(torch_dtype).contiguous()
                out.write(value.view(torch.uint8).numpy().tobytes())
            out.truncate(len(begin) + length)
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": where}
        (folder / name / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_tokenizer(folder, words):
    """Both forms of a tokenizer of so many words: the goldens' ones, and pairs of those."""
    small = json.loads((GOLDENS / "edit/tokenizer.json").read_text())
    vocabulary, merges = small["model"]["vocab"], small["model"]["merges"]
    parts = list(vocabulary)
    pairs = ((left, right) for left in parts for right in parts)
    while len(vocabulary) < words:
        left, right = next(pairs)
        if left + right not in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            merges.append([left, right])
    added = [(token, True) for token in SPECIAL] + [(token, False) for token in ADDED + [f"<|{name}|>" for name in LATER]]
    (folder / "tokenizer/vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "tokenizer/merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")
    numbers = {token: words + i for i, (token, _) in enumerate(added)}
    (folder / "tokenizer/added_tokens.json").write_text(json.dumps(numbers, indent=2))
    decoder = {
        str(numbers[token]): dict(content=token, lstrip=False, normalized=False, rstrip=False, single_word=False, special=special)
        for token, special in added
    }
    config = dict(add_prefix_space=False, added_tokens_decoder=decoder, tokenizer_class="Qwen2Tokenizer")
    config |= dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=SPECIAL[1:])
    (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps(config, indent=2))
    made = Tokenizer.from_file(str(GOLDENS / "edit/tokenizer.json"))
    made = Tokenizer.from_str(json.dumps(json.loads(made.to_str()) | {"added_tokens": []}))
    made.model = models.BPE(vocab=vocabulary, merges=[tuple(pair) for pair in merges])
    for token, special in added:
        add = made.add_special_tokens if special else made.add_tokens
        add([AddedToken(token, special=special, normalized=False)])
    assert made.token_to_id("<|image_pad|>") == numbers["<|image_pad|>"]
    made.save(str(folder / "processor/tokenizer.json"))


def random_value(seed):
    """Random values for a parameter, of a size that keeps what passes through the network near one."""
    generator = torch.Generator().manual_seed(seed)

    def value(name, parameter):
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("gamma") or (name.endswith("weight") and parameter.ndim == 1):
            noise = 1 + 0.3 * noise
        elif name.endswith("bias"):
            noise = 0.2 * noise
        elif "embed_tokens" not in name:
            # Of a causal kernel, a single picture sees one plane.
            planes = parameter.shape[2] if parameter.ndim == 5 and not name.endswith("patch_embed.proj.weight") else 1
            noise = noise * (parameter[0].numel() / planes) ** -0.5
        return noise.bfloat16()

    return value


def write(folder, dtype="bf16", random=False, own=None, words=WORDS, parts=None, **sizes):
    """A whole folder. `own` are values for our key of `model_index.json`."""
    folder = pathlib.Path(folder)
    transformer, text, vae = configs(words=words, **sizes)
    for name in ("transformer", "text_encoder", "vae", "scheduler", "processor", "tokenizer"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, config in (("transformer", transformer), ("text_encoder", text), ("vae", vae)):
        (folder / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    index = {"_class_name": "QwenImageEditPlusPipeline", "_diffusers_version": "0.36.0"}
    index |= {"tagbrush": own} if own else {}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(PUBLISHED, indent=2) + "\n")
    limits = (GOLDENS / "edit/preprocessor_min_pixels.json").read_text()
    (folder / "processor/preprocessor_config.json").write_text(limits)
    write_tokenizer(folder, words)
    values = random_value(4) if random else None
    for name, module in modules(transformer, text, vae).items():
        if parts is None or name in parts:
            write_part(folder, name, module, dtype, values)
    return folder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    for name, value in (("layers", 60), ("text-layers", 28), ("vision-layers", 32), ("words", WORDS)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--random", action="store_true")
    arguments = vars(parser.parse_args())
    folder = write(arguments.pop("folder"), **arguments)
    files = [file for file in folder.rglob("*") if file.is_file()]
    apparent, taken = (sum(size(os.stat(file)) for file in files) for size in (lambda s: s.st_size, lambda s: 512 * s.st_blocks))
    print(f"{len(files)} files, {apparent / 1e9:.1f} GB, of which {taken / 1e9:.3f} GB on disk")


if __name__ == "__main__":
    main()
