"""The autoencoder at 1024 px against diffusers: seconds and memory.

Writes a model whose autoencoder is the published one, with random weights in f32, and whose other networks are narrow, so
that they cost nothing beside it. What an edit takes until its only step is over is encoding then, and the rest decoding.
Processes of tagbrush and of diffusers (f32, as many threads as cores) take turns for several rounds; memory is the
largest resident memory of each process, less what it had before.

    cargo build --release --example edit_worker && python benches/edit_vae.py [--size 1024] [--rounds 3]
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

import torch
from diffusers import AutoencoderKLQwenImage
from safetensors.torch import load_file

import edit_models
from edit import Worker, picture
from process import Process


def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def serve(folder, size):
    """The process of diffusers: each line of the input is a round."""
    with torch.device("meta"):
        config = {key: value for key, value in edit_models.VAE.items() if key != "_class_name"}
        vae = AutoencoderKLQwenImage(**config)
    vae.load_state_dict(load_file(folder / "vae/diffusion_pytorch_model.safetensors"), assign=True)
    vae.eval()
    pixels = torch.from_numpy(picture(size, size)).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    print("ready", flush=True)
    for _ in sys.stdin:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before, start = status("VmRSS"), time.time()
        latents = vae.encode(pixels).latent_dist.mode()
        middle, peak = time.time(), status("VmHWM")
        vae.decode(latents)
        print(middle - start, time.time() - middle, peak - before, status("VmHWM") - before, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = arguments.size
    if arguments.serve:
        return serve(arguments.serve, size)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        sizes = dict(layers=1, text_layers=1, vision_layers=1, words=600, narrow=True)
        edit_models.write(folder, dtype="f32", random=True, own={"vision_area": 56 * 56}, **sizes)
        ours, theirs = Worker(folder, "f32"), Process([sys.executable, __file__, "--serve", folder, "--size", size])
        rows = {"tagbrush": [], "diffusers": []}
        for round_ in range(arguments.rounds + 1):
            before = int(ours.ask("rest"))
            took, first, _, peak = ours.edit(1, size, 1, 1)
            row = [first, took - first, peak - before]
            other = [float(word) for word in theirs.ask("go").split()]
            print(f"round {round_}: tagbrush {row}, diffusers {other}", flush=True)
            if round_:
                rows["tagbrush"].append(row)
                rows["diffusers"].append(other[:2] + [max(other[2:])])
    for name, values in rows.items():
        encode, decode, peak = (statistics.median(column) for column in zip(*values))
        print(f"{name}: encode {encode:.1f} s, decode {decode:.1f} s, {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
