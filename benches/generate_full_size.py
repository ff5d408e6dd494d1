"""Generates with SDXL at its published size in memory that is smaller than it.

Writes a folder as diffusers publishes SDXL with holes for weights (6.9 GB that take no disk), runs the command line with
`--max-memory` at several sizes, and compares what each process took with what it was allowed. Weights of zeros make grey
pictures: it is names, shapes, memory and time that are looked at.

    cargo build --release && python benches/generate_full_size.py [--folder DIR] [--runs 3e9:512,6e9:1024,0:512]
                                                                  [--arguments "--image a.png --upscale 2"] [--dtype bf16]

Each run is a bound in bytes (0 for none) and the side of the picture; a process with one step and guidance.
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT = dict(vocab_size=49408, max_position_embeddings=77, layer_norm_eps=1e-5, eos_token_id=2, model_type="clip_text_model")
SMALL = TEXT | dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu")
LARGE = TEXT | dict(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, hidden_act="gelu",
    projection_dim=1280,
)  # fmt: skip
UNET = dict(
    block_out_channels=[320, 640, 1280], down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], layers_per_block=2,
    transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20], cross_attention_dim=2048,
    use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816, norm_num_groups=32, norm_eps=1e-5,
)  # fmt: skip
VAE = dict(
    block_out_channels=[128, 256, 512, 512], down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2, latent_channels=4, norm_num_groups=32,
    scaling_factor=0.13025,
)  # fmt: skip


def write(folder, dtype):
    """The folder, with holes for weights."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from edit_models import DTYPES, header

    text = lambda kind, config: kind(CLIPTextConfig(**{key: value for key, value in config.items() if key != "model_type"}))
    with torch.device("meta"):
        parts = {
            "text_encoder": (text(CLIPTextModel, SMALL), SMALL | dict(architectures=["CLIPTextModel"])),
            "text_encoder_2": (
                text(CLIPTextModelWithProjection, LARGE), LARGE | dict(architectures=["CLIPTextModelWithProjection"]),
            ),
            "unet": (UNet2DConditionModel(**UNET), UNET | dict(_class_name="UNet2DConditionModel")),
            "vae": (AutoencoderKL(**VAE), VAE | dict(_class_name="AutoencoderKL")),
        }  # fmt: skip
    for name, (module, config) in parts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        stem = "model" if name.startswith("text") else "diffusion_pytorch_model"
        begin, length = header({key: value.shape for key, value in module.state_dict().items()}, DTYPES[dtype][0])
        with open(folder / name / f"{stem}.safetensors", "wb") as out:
            out.write(begin)
            out.truncate(len(begin) + length)
    index = dict(_class_name="StableDiffusionXLPipeline", _diffusers_version="0.42.1")
    (folder / "model_index.json").write_text(json.dumps(index) + "\n")


def run(folder, dtype, memory, side, more, output):
    """Seconds, the largest resident memory in bytes, and what went wrong."""
    tool = os.environ.get("TAGBRUSH", ROOT / "target/release/tagbrush")
    command = [tool, "generate", "--model", folder, "--dtype", dtype, "--prompt", "a lighthouse", "--size", f"{side}x{side}"]
    command += ["--steps", "1", "--guidance-scale", "4", "--output", output, "--quiet", *more]
    command += ["--max-memory", str(memory)] if memory else []
    start = time.time()
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    return time.time() - start, usage.ru_maxrss * 1024, errors.strip() if status else ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--runs", default="1e9:512,2e9:512,4e9:1024,6e9:1024,8e9:1024,0:1024")
    parser.add_argument("--arguments", default="", type=shlex.split)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--write", action="store_true", help="write the folder and do nothing else")
    arguments = parser.parse_args()
    if arguments.write:
        return write(arguments.folder, arguments.dtype)
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary) / "sdxl"
        if not (folder / "model_index.json").exists():
            # A process starts with the largest memory that the one which started it ever took.
            subprocess.run([sys.executable, __file__, "--write", "--folder", folder, "--dtype", arguments.dtype], check=True)
        for i, (memory, side) in enumerate(run.split(":") for run in arguments.runs.split(",")):
            memory, output = int(float(memory)), pathlib.Path(temporary) / f"output{i}"
            seconds, peak, error = run(folder, arguments.dtype, memory, side, arguments.arguments, output)
            allowed = f"{memory / 1e9:.2f} GB" if memory else "all memory"
            failed |= bool(memory) and peak > memory
            print(f"{side} px in {allowed}: {seconds:.1f} s, peak {peak / 1e9:.2f} GB {error}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
