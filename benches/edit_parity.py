"""Compares edits with diffusers on networks of the published widths with random weights.

Writes a folder in the published layout with one block of the transformer, one layer of the language model, two blocks of
the vision part, a small vocabulary and the whole autoencoder, in f32 with values that bfloat16 has; makes the same edits
with diffusers and with tagbrush, in f32 from the same seeds, and prints the largest difference of values (from 0 to 1) and
of 8-bit pictures. As in `make_edit_pipeline.py`, diffusers gets the areas from outside, and `mm_token_type_ids`.

    cargo build --release --example edit_worker && python benches/edit_parity.py [--size 256] [--steps 3] [--rounds 2]
"""

import argparse
import pathlib
import sys
import tempfile
import time

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as plus
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2_5_VLProcessor, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

import edit_models
from edit import PROMPT, SEED, Worker, picture
from make_edit import PUBLISHED

SIZES = dict(layers=1, text_layers=1, vision_layers=2, words=600)


def reference(folder, area, vision_area):
    """The pipeline of diffusers with the folder's weights."""
    parts = edit_models.modules(*edit_models.configs(**SIZES), device="cpu")
    for name, module in parts.items():
        tensors = {}
        for file in (folder / name).glob("*.safetensors"):
            tensors |= load_file(file)
        names = {key: edit_models.stored(name, key) for key in module.state_dict()}
        module.load_state_dict({key: tensors[stored] for key, stored in names.items()}, assign=True)
        module.eval()
    text = parts["text_encoder"]
    image_token, forward = text.config.image_token_id, text.forward
    text.forward = lambda **inputs: forward(**inputs, mm_token_type_ids=(inputs["input_ids"] == image_token).int())
    dimensions = plus.calculate_dimensions
    plus.calculate_dimensions = lambda wanted, ratio: dimensions(area if wanted == 1024 * 1024 else wanted, ratio)
    plus.VAE_IMAGE_SIZE, plus.CONDITION_IMAGE_SIZE = area, vision_area
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056),
        tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor(), chat_template="",
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(PUBLISHED)
    pipe = plus.QwenImageEditPlusPipeline(scheduler=scheduler, tokenizer=tokenizer, processor=processor, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--memory", type=float, default=0, help="bytes that tagbrush may take")
    arguments = parser.parse_args()
    size, area, vision_area = arguments.size, arguments.size**2, 384 * 384
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        edit_models.write(folder, dtype="f32", random=True, own={"vision_area": vision_area}, **SIZES)
        (folder / "processor/tokenizer.json").unlink()
        made = folder / "made"
        worker = Worker(folder, "f32", int(arguments.memory))
        print(worker.ask(f"edit {arguments.rounds} {size}x{size} {area} {arguments.steps} {arguments.cfg} {made}"))
        worker.stop()
        found = np.fromfile(made, "<f4").reshape(arguments.rounds, size, size, 3)
        pipe = reference(folder, area, vision_area)
        worst = 0.0
        for number in range(arguments.rounds):
            start = time.time()
            expected = pipe(
                image=[Image.fromarray(picture(size, size, number))], prompt=PROMPT, negative_prompt=" ", height=size, width=size,
                true_cfg_scale=arguments.cfg, num_inference_steps=arguments.steps, output_type="np",
                generator=torch.Generator().manual_seed(SEED),
            ).images[0]  # fmt: skip
            seconds = time.time() - start
            difference = np.abs(found[number] - expected)
            bytes_ = [np.rint(values.astype(np.float64) * 255).astype(int) for values in (found[number], expected)]
            off = np.abs(bytes_[0] - bytes_[1])
            worst = max(worst, difference.max())
            ends = ((expected == 0) | (expected == 1)).mean()
            print(
                f"{number}: largest difference {difference.max():.1e}, mean {difference.mean():.1e}; of 8 bits: largest {off.max()}, "
                f"not equal {(off > 0).mean():.5f}; deviation {expected.std():.3f}, at an end {ends:.3f} ({seconds:.0f} s)",
                flush=True,
            )
    return float(worst)


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(int(main() > 1e-3))
