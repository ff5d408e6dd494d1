"""What PyTorch reaches on the device that `gpu-check` measures, with the same shapes and random weights.

    core/gpu/with-nvcc.sh cargo build --release -p tagbrush --features cuda,gpu-check --bin gpu-check
    gpu-check --output gpu.json && python benches/gpu_peers.py gpu.json

Both should run one after the other on the same idle machine. Needs torch with CUDA and timm; diffusers for edits and SDXL.
Taggers run in bfloat16 as timm builds them (whose attention is `scaled_dot_product_attention`), eager and compiled; the
transformer of Qwen-Image-Edit and the network of SDXL as diffusers builds them. Adds `peers` and `ratios` to the file.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch

BATCHES = [1, 2, 4, 8, 16, 32]
LABELS = 10_861
TEXT = 300
TAGGERS = {
    "vit": ("vit_base_patch16_224", dict(img_size=448, act_layer="gelu_tanh", class_token=False, fc_norm=False, global_pool="avg")),
    "swinv2": ("swinv2_base_window8_256", dict(img_size=448, window_size=14, act_layer="gelu_tanh")),
    "convnext": ("convnext_base", dict(act_layer="gelu_tanh")),
    "eva02-large": ("eva02_large_patch14_448", dict(img_size=448, ref_feat_shape=[32, 32])),
}

# Batch, heads, tokens, values of a head.
ATTENTION = {
    "Qwen-Image-Edit, 1024 px": (1, 24, 8492, 128),
    "SDXL, 1024 px, with guidance": (2, 10, 4096, 64),
    "ViT-B, 32 pictures": (32, 12, 784, 64),
    "EVA-02-L, 32 pictures": (32, 16, 1025, 64),
}


def seconds(run, times):
    """The median, after two runs that do not count."""
    measured = []
    for i in range(times + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if i >= 2:
            measured.append(time.perf_counter() - start)
    return statistics.median(measured)


def on_device(make):
    """A module whose weights are made on the device, in bfloat16."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return make().eval()
    finally:
        torch.set_default_dtype(torch.float32)


def attention():
    from torch.nn.functional import scaled_dot_product_attention

    found = {}
    for name, (batch, heads, tokens, width) in ATTENTION.items():
        q, k, v = (torch.randn(batch, tokens, heads, width, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(3))
        found[name] = {"s": seconds(lambda: scaled_dot_product_attention(q, k, v), 10)}
        print(name, found[name], flush=True)
    return found


def taggers():
    import timm

    found = {}
    for name, (architecture, args) in TAGGERS.items():
        model = on_device(lambda: timm.create_model(architecture, num_classes=LABELS, **args))
        rates = {"eager": {}, "compiled": {}}
        for way, network in (("eager", model), ("compiled", torch.compile(model, dynamic=False))):
            for batch in BATCHES:
                # The bytes of pictures go up each time, and are scaled there, as in tagbrush.
                pixels = torch.full((batch, 3, 448, 448), 128, dtype=torch.uint8).pin_memory()

                def run():
                    x = pixels.to("cuda", non_blocking=True).to(torch.bfloat16) / 127.5 - 1
                    return network(x)

                rates[way][str(batch)] = batch / seconds(run, 10)
            print(name, way, rates[way], flush=True)
        found[name] = rates
        torch._dynamo.reset()
    return found


def edits():
    from diffusers import QwenImageTransformer2DModel

    torch.cuda.reset_peak_memory_stats()
    model = on_device(lambda: QwenImageTransformer2DModel(zero_cond_t=True))
    found = {}
    for name, side, samples in (
        ("step, 1024 px, with guidance", 1024, 2),
        ("step, 512 px, with guidance", 512, 2),
        ("step, 4 x 512 px, with guidance", 512, 8),
    ):
        grid = (1, side // 16, side // 16)
        options = dict(device="cuda", dtype=torch.bfloat16)
        latents = torch.randn(samples, 2 * grid[1] * grid[2], 64, **options)
        text = torch.randn(samples, TEXT, 3584, **options)
        mask = torch.ones(samples, TEXT, dtype=torch.bool, device="cuda")
        times = torch.full((samples,), 0.9, **options)
        run = lambda: model(
            hidden_states=latents,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=mask,
            timestep=times,
            img_shapes=[[grid, grid]] * samples,
        )
        found[name] = {"s": seconds(run, 5), "memory": torch.cuda.max_memory_allocated()}
        print(name, found[name], flush=True)
    return found


def generation():
    from diffusers import UNet2DConditionModel

    model = on_device(
        lambda: UNet2DConditionModel(
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            attention_head_dim=(5, 10, 20),
            block_out_channels=(320, 640, 1280),
            cross_attention_dim=2048,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            projection_class_embeddings_input_dim=2816,
            transformer_layers_per_block=(1, 2, 10),
            use_linear_projection=True,
            sample_size=128,
        )
    ).to(memory_format=torch.channels_last)
    found = {}
    for pictures in (1, 4):
        samples = 2 * pictures
        options = dict(device="cuda", dtype=torch.bfloat16)
        latents = torch.randn(samples, 4, 128, 128, **options)
        text = torch.randn(samples, 77, 2048, **options)
        added = {"text_embeds": torch.randn(samples, 1280, **options), "time_ids": torch.full((samples, 6), 1024.0, **options)}
        run = lambda: model(latents, 500, text, added_cond_kwargs=added)
        name = f"step, {pictures} x 1024 px, with guidance"
        found[name] = {"s": seconds(run, 5)}
        print(name, found[name], flush=True)
    return found


def ratios(ours, peers):
    """How many times faster tagbrush is."""
    found = {}
    for name, peer in peers.get("attention", {}).items():
        for units, own in ours["attention"][name].items():
            found[f"attention: {name}, {units}"] = peer["s"] / own["s"]
    for name, rates in peers.get("taggers", {}).items():
        own = ours["taggers, full size"][name]["network"]
        for way in rates:
            found[f"{name}, {way}"] = {batch: own[batch]["images/s"] / rate for batch, rate in rates[way].items()}
    for section in ("edits", "generation"):
        for name, peer in peers.get(section, {}).items():
            found[f"{section}: {name}"] = peer["s"] / ours[f"{section}, full size"][name]["s"]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=pathlib.Path, help="what gpu-check wrote")
    parser.add_argument("--only", choices=["attention", "taggers", "edits", "generation"], action="append")
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text())
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device here")
    peers = {"torch": torch.__version__, "device": torch.cuda.get_device_name()}
    with torch.inference_mode():
        for section in (attention, taggers, edits, generation):
            if arguments.only and section.__name__ not in arguments.only:
                continue
            try:
                peers[section.__name__] = section()
            except ImportError as error:
                print(f"{section.__name__} not measured: {error}")
            torch.cuda.empty_cache()
    report["peers"], report["ratios"] = peers, ratios(report, peers)
    arguments.report.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["ratios"], indent=2))


if __name__ == "__main__":
    main()
