"""Writes `timm/<case>/`: small model folders with random weights, and what timm makes of a picture.

Each folder is laid out as published (config.json, model.safetensors, selected_tags.csv). Its
`golden.safetensors` has `pixels` (b, h, w, 3) RGB bytes of the network's size and timm's `logits` and
`features` for them. Weights, norms, biases and scales are all random, so that no layer can hide.

    pip install -r requirements.txt && python make_timm.py
"""

import json
import pathlib
import sys

import numpy as np
import timm
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent

VIT = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
EVA = dict(img_size=40, patch_size=8, embed_dim=24, depth=2, num_heads=3)
SWIN = dict(img_size=64, embed_dim=8, depths=[2, 2, 2], num_heads=[1, 2, 4], window_size=8)
CONVNEXT = dict(depths=[1, 1, 2, 1], dims=[8, 12, 16, 24])

CASES = {
    # As WD v3 configures it.
    "vit-wd": ("vit_base_patch16_224", VIT | dict(act_layer="gelu_tanh", class_token=False, fc_norm=False, global_pool="avg")),
    "vit-class-token": ("vit_small_patch16_224", VIT),
    "vit-average": ("vit_base_patch16_224", VIT | dict(global_pool="avg", mlp_ratio=2.5)),
    "vit-registers": ("vit_base_patch14_reg4_dinov2.lvd142m", VIT | dict(reg_tokens=3)),
    "vit-registers-embedded": ("vit_base_patch16_224", VIT | dict(reg_tokens=2, global_pool="avgmax")),
    "vit-prefix-pooled": ("vit_base_patch16_224", VIT | dict(reg_tokens=1, global_pool="max", pool_include_prefix=True)),
    "vit-qk-norm": ("vit_base_patch16_224", VIT | dict(qk_norm=True, qkv_bias=False, init_values=0.1)),
    "vit-inner-norms": ("vit_base_patch16_224", VIT | dict(scale_attn_norm=True, scale_mlp_norm=True, proj_bias=False)),
    "vit-clip": ("vit_base_patch32_clip_quickgelu_224", VIT),
    "vit-no-positions": ("vit_base_patch16_224", VIT | dict(pos_embed="none", class_token=False, global_pool="avg", act_layer="silu")),
    "vit-no-norm": ("vit_base_patch16_224", VIT | dict(final_norm=False)),
    "vit-rms": ("vit_base_patch16_224", VIT | dict(norm_layer="rmsnorm")),
    # As WD v3 configures it, on a grid that differs from the reference grid.
    "eva-wd": ("eva02_large_patch14_448", EVA | dict(ref_feat_shape=[4, 4])),
    "eva-fused": ("eva02_tiny_patch14_224", EVA),
    "eva-clip": ("eva02_base_patch16_clip_224", EVA),
    "eva-registers": ("eva02_large_patch14_448", EVA | dict(class_token=False, num_reg_tokens=4, use_abs_pos_emb=False, scale_mlp=False, ref_feat_shape=[5, 5])),
    "eva-plain": ("eva_giant_patch14_224", EVA | dict(init_values=0.1, qkv_bias=False)),
    "eva-post-norm": ("eva02_large_patch14_448", EVA | dict(use_fc_norm=False, no_embed_class=True, qk_norm=True, swiglu_align_to=16, rope_grid_offset=1.0, rope_temperature=100.0)),
    "eva-avgmax": ("eva02_large_patch14_448", EVA | dict(global_pool="avgmax", use_pre_transformer_norm=True, attn_only_layer_scale=True, init_values=0.2)),
    # As WD v3 configures it: the last stage is one window, unshifted.
    "swin-wd": ("swinv2_base_window8_256", SWIN | dict(act_layer="gelu_tanh", window_size=4)),
    "swin-v2-1": ("swinv2_base_window8_256", SWIN | dict(act_layer="gelu")),
    "swin-padded": ("swinv2_tiny_window8_256", SWIN | dict(img_size=52, window_size=5)),
    "swin-trained-smaller": ("swinv2_base_window12to16_192to256", SWIN | dict(window_size=6, pretrained_window_sizes=[4, 4, 2])),
    "swin-always": ("swinv2_tiny_window8_256", SWIN | dict(window_size=[[6, 6], [3, 5], [4, 4]], always_partition=True, qkv_bias=False, global_pool="avgmax")),
    # As WD v3 configures it.
    "convnext-wd": ("convnext_base", CONVNEXT | dict(act_layer="gelu_tanh")),
    "convnext-v2": ("convnextv2_base", CONVNEXT),
    "convnext-conv-mlp": ("convnextv2_atto", CONVNEXT | dict(norm_eps=1e-3)),
    "convnext-hidden": ("convnext_large_mlp", CONVNEXT | dict(head_hidden_size=20, kernel_sizes=[7, 5, 3, 3])),
    "convnext-norm-first": ("convnext_tiny_hnf", CONVNEXT | dict(conv_bias=False, global_pool="max")),
    "convnext-rms": ("convnext_atto_rms", CONVNEXT | dict(patch_size=2)),
    # Seeds count the cases, so new ones come last.
    "vit-siglip": ("vit_base_patch16_siglip_224", VIT | dict(mlp_ratio=2.5)),
    "vit-attention-pool": ("vit_base_patch16_224", VIT | dict(global_pool="map", reg_tokens=2, qkv_bias=False, fc_norm=True, act_layer="gelu_tanh", norm_layer="rmsnorm")),
}

LABELS = (
    [("general", 9), ("sensitive", 9), ("questionable", 9), ("explicit", 9)]
    + [(name, 0) for name in ("1girl", "solo", "long_hair", "very_long_hair", "star_(symbol)", ">_<", "\\m/", 'don\'t_say_"lazy"')]
    + [(name, 4) for name in ("hatsune_miku", "kagamine_rin", "rin_(vocaloid)")]
)


def randomise(model, generator):
    """Fills every parameter so that each of them changes the answer."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2 and "logit_scale" not in name and "token" not in name:
            fan_in = parameter[0].numel() if parameter.ndim > 1 else parameter.numel()
            value = noise * (1.5 / fan_in ** 0.5)
        elif name.endswith("logit_scale"):
            value = 2.0 + 2.0 * noise  # Some above the clamp at ln 100.
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "token" in name:
            value = noise
        else:
            value = 0.8 + 0.3 * noise
        with torch.no_grad():
            parameter.copy_(value)


def write_labels(path):
    import csv

    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        for i, (name, category) in enumerate(LABELS):
            writer.writerow([9999999 - i, name, category, 100000 - i])


def size_of(architecture, args):
    size = args.get("img_size", 64)
    return (size, size) if isinstance(size, int) else tuple(size)


def config_of(architecture, args, model, size):
    return {
        "architecture": architecture.split(".")[0],
        "num_classes": len(LABELS),
        "num_features": model.num_features,
        "model_args": args,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, *size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": len(LABELS),
            "pool_size": None,
            "first_conv": None,
            "classifier": None,
        },
    }


def to_input(pixels):
    """The reference's input: BGR, scaled to -1..1, channels first."""
    bgr = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1])).float()
    return ((bgr / 255 - 0.5) / 0.5).permute(0, 3, 1, 2).contiguous()


def write_case(name, architecture, args, seed):
    folder = HERE / "timm" / name
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    model = timm.create_model(architecture.split(".")[0], num_classes=len(LABELS), **args).eval()
    randomise(model, generator)
    size = size_of(architecture, args)
    pixels = np.random.RandomState(seed).randint(0, 256, (2, *size, 3), dtype=np.uint8)
    with torch.inference_mode():
        features = model.forward_features(to_input(pixels))
        golden = {
            "pixels": torch.from_numpy(pixels),
            "features": model.forward_head(features, pre_logits=True).contiguous(),
            "logits": model.forward_head(features).contiguous(),
        }
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    save_file(golden, folder / "golden.safetensors")
    write_labels(folder / "selected_tags.csv")
    config = config_of(architecture, args, model, size)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    logits = golden["logits"]
    print(f"{name:24} logits {logits.std():.2f}, between pictures {(logits[0] - logits[1]).abs().mean():.3f}")


def main():
    wanted = sys.argv[1:] or CASES
    for seed, (name, (architecture, args)) in enumerate(CASES.items()):
        if name in wanted:
            write_case(name, architecture, args, seed)


if __name__ == "__main__":
    main()
