"""Writes `edit-text-encoder/`: a small Qwen2.5-VL, and what transformers computes with it.

The folder is as published (a config.json of the time, model.safetensors in bfloat16 under the names of the time), with
random weights that are perturbed everywhere, also norms and biases, so that no layer can hide. `config-5.json` is the
same configuration as transformers 5 writes it. Everything is computed in f32 but for what has `bf16` in its name, one
prompt at a time, and with `mm_token_type_ids`: without them transformers 5 gives all tokens positions on a line.

- `golden.json` has the grids of pictures, in patches; prompts, with the positions of their tokens on three axes; and the
  names that transformers 5 has for the tensors.
- `golden.safetensors` has `patches.i` of picture `i`; the vectors of all pictures behind the first `k` blocks of the
  vision part and its last layers, `vision.k`, and all blocks in bfloat16, `vision.bf16`; the states of prompt `p` behind
  the first `k` layers and the last norm, `states.k.p`, all layers in bfloat16, `states.bf16.p`, and in f32 with positions
  on a line, `states.line.p`. The first states of a prompt, which an edit drops, are not there.

    pip install -r requirements.txt && python make_edit_text_encoder.py
"""

import copy
import json
import pathlib
import tempfile

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

OUT = pathlib.Path(__file__).resolve().parent / "edit-text-encoder"

# As the published file says it, with small sizes. Every number that can differ from another does, as do the three parts of
# the rotary positions, so that exchanged ones show; windows are 3 merged patches wide.
CONFIG = dict(
    architectures=["Qwen2_5_VLForConditionalGeneration"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2,
    vision_start_token_id=36, vision_end_token_id=37, vision_token_id=38, image_token_id=39, video_token_id=35,
    hidden_act="silu", hidden_size=48, initializer_range=0.02, intermediate_size=56, max_position_embeddings=128000,
    max_window_layers=28, model_type="qwen2_5_vl", num_attention_heads=4, num_hidden_layers=3, num_key_value_heads=2,
    rms_norm_eps=1e-3, rope_theta=50000.0, sliding_window=32768, tie_word_embeddings=False, torch_dtype="bfloat16",
    transformers_version="4.41.2", use_cache=True, use_sliding_window=False, vocab_size=40,
    vision_config=dict(
        depth=3, hidden_act="silu", hidden_size=32, intermediate_size=44, num_heads=2, in_chans=3, out_hidden_size=48,
        patch_size=4, spatial_merge_size=2, spatial_patch_size=4, window_size=24, fullatt_block_indexes=[1],
        tokens_per_second=2, temporal_patch_size=2,
    ),
    rope_scaling={"type": "mrope", "mrope_section": [1, 2, 3]},
)  # fmt: skip

# Rows and columns in patches: windows with ragged edges, less than one window, whole windows.
GRIDS = [(10, 14), (4, 6), (12, 6)]

# Pictures, and tokens before, between and behind them, of which the first are dropped.
PROMPTS = [
    dict(pictures=[0], text=[5, 7], dropped=3),
    dict(pictures=[1, 2], text=[4, 3, 6], dropped=2),
    dict(pictures=[], text=[9], dropped=0),
    dict(pictures=[2], text=[1, 2], dropped=6),
]


def randomise(model, generator):
    """Fills every parameter so that each of them changes the answer, with values that bfloat16 has."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            value = 0.2 * noise
        elif parameter.ndim == 1:
            value = 1 + 0.3 * noise
        elif "embed_tokens" in name:
            value = noise
        else:
            value = noise * parameter[0].numel() ** -0.5
        parameter.data.copy_(value.bfloat16())


def prompts(config, generator):
    """Token ids, where the vectors of pictures go, and how many states are dropped."""
    start, end, image = config.vision_start_token_id, config.vision_end_token_id, config.image_token_id
    for prompt in PROMPTS:
        ids, places = [], []
        for i, count in enumerate(prompt["text"]):
            if i > 0:
                picture = prompt["pictures"][i - 1]
                vectors = GRIDS[picture][0] * GRIDS[picture][1] // config.vision_config.spatial_merge_size**2
                places.append(dict(picture=picture, at=[len(ids) + 1, len(ids) + 1 + vectors]))
                ids += [start, *[image] * vectors, end]
            ids += torch.randint(0, start - 1, (count,), generator=generator).tolist()
        yield dict(ids=ids, pictures=places, dropped=prompt["dropped"])


def vision(model, patches):
    """The vectors of all pictures in one call."""
    grids = torch.tensor([(1, *grid) for grid in GRIDS])
    return model.model.visual(torch.cat(patches).to(model.dtype), grid_thw=grids).pooler_output.float()


def inputs(model, prompt, patches):
    ids = torch.tensor([prompt["ids"]])
    which = [place["picture"] for place in prompt["pictures"]]
    given = dict(input_ids=ids, mm_token_type_ids=(ids == model.config.image_token_id).int())
    if which:
        given["pixel_values"] = torch.cat([patches[i] for i in which]).to(model.dtype)
        given["image_grid_thw"] = torch.tensor([(1, *GRIDS[i]) for i in which])
    return given


def states(model, prompt, given):
    output = model(**given, output_hidden_states=True, use_cache=False)
    return output.hidden_states[-1][0, prompt["dropped"] :].float().contiguous()


def first(model, blocks, layers):
    """The network with the first blocks of the vision part and the first layers of the language model."""
    part = copy.deepcopy(model)
    part.model.visual.blocks = part.model.visual.blocks[:blocks]
    part.model.language_model.layers = part.model.language_model.layers[:layers]
    return part


def save(model):
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    (OUT / "config-5.json").write_text(model.config.to_json_string(use_diff=False))
    with tempfile.TemporaryDirectory() as temporary:
        folders = {original: pathlib.Path(temporary) / str(original) for original in (True, False)}
        for original, folder in folders.items():
            model.bfloat16().save_pretrained(folder, save_original_format=original)
        with safe_open(folders[True] / "model.safetensors", "pt") as file:
            save_file({name: file.get_tensor(name) for name in file.keys()}, OUT / "model.safetensors", metadata={"format": "pt"})
        with safe_open(folders[False] / "model.safetensors", "pt") as file:
            return list(file.keys())


def report(name, tensor, expected=None):
    against = "" if expected is None else f", differs by {(tensor - expected).abs().max() / expected.abs().max():.1e}"
    print(f"{name}: {tuple(tensor.shape)}, deviation {tensor.std():.3f}, largest {tensor.abs().max():.3f}{against}")


def main():
    generator = torch.Generator().manual_seed(3)
    config = Qwen2_5_VLConfig.from_dict(copy.deepcopy(CONFIG))
    model = Qwen2_5_VLForConditionalGeneration(config)
    randomise(model, generator)
    names = save(model)
    # Read again: a model that is cast has rounded frequencies, which one that is loaded has not.
    load = lambda dtype: Qwen2_5_VLForConditionalGeneration.from_pretrained(OUT, dtype=dtype).eval()
    model, low = load(torch.float32), load(torch.bfloat16)
    assert torch.equal(model.model.language_model.rotary_emb.inv_freq, low.model.language_model.rotary_emb.inv_freq)
    part = config.vision_config
    values = part.in_channels * part.temporal_patch_size * part.patch_size**2
    patches = [torch.randn(rows * columns, values, generator=generator).bfloat16().float() for rows, columns in GRIDS]
    samples = list(prompts(config, generator))
    depth, layers = part.depth, config.text_config.num_hidden_layers

    tensors = {f"patches.{i}": values.bfloat16() for i, values in enumerate(patches)}
    for k in range(1, depth + 1):
        tensors[f"vision.{k}"] = vision(first(model, k, 1), patches)
        report(f"vision.{k}", tensors[f"vision.{k}"])
    tensors["vision.bf16"] = vision(low, patches)
    report("vision.bf16", tensors["vision.bf16"], tensors[f"vision.{depth}"])
    for p, prompt in enumerate(samples):
        given = inputs(model, prompt, patches)
        for k in range(1, layers + 1):
            tensors[f"states.{k}.{p}"] = states(first(model, depth, k), prompt, given)
        all_layers = tensors[f"states.{layers}.{p}"]
        report(f"states.{p}", all_layers)
        tensors[f"states.bf16.{p}"] = states(low, prompt, inputs(low, prompt, patches))
        report(f"states.bf16.{p}", tensors[f"states.bf16.{p}"], all_layers)
        line = {name: value for name, value in given.items() if name != "mm_token_type_ids"}
        tensors[f"states.line.{p}"] = states(model, prompt, line)
        report(f"states.line.{p}", tensors[f"states.line.{p}"], all_layers)
        pictures = given.get("image_grid_thw")
        positions, _ = model.model.get_rope_index(given["input_ids"], given["mm_token_type_ids"], pictures)
        prompt["positions"] = positions[:, 0].T.tolist()
    save_file(tensors, OUT / "golden.safetensors")
    golden = dict(grids=GRIDS, prompts=samples, names=names)
    (OUT / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
