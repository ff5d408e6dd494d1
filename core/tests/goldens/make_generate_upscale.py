"""Writes `generate-upscale/`: small networks that make pictures larger, in every spelling and file format that such networks are
published in, and what spandrel computes with them.

Weights are random, perturbed everywhere, with values that half precision has. Everything is computed in f32.

- `cases.json` has the files with their factors.
- `golden.safetensors` has for each of them `NAME/picture` and `NAME/larger`, channels last, from 0 to 1 as they were given.
- `flow.json` and `flow.safetensors` are of the whole way of Fooocus with `generate-pipeline/model`: a picture (`start`) through
  `fooocus.bin`, resampled by Pillow (`resampled`), through the autoencoder in tiles as ComfyUI cuts them, partly made anew by
  diffusers (`latents` to `made`), and back in tiles (`picture`, values from 0 to 1 before they are brought to 8 bits).

    pip install -r requirements.txt && python make_generate_upscale.py
"""

import io
import json
import pathlib
import shutil
import zipfile

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline
from make_generate_pipeline import BETAS
from make_generate_pipeline import OUT as PIPELINE
from PIL import Image
from safetensors.torch import save_file
from spandrel import ModelLoader
from spandrel.architectures.ESRGAN.__arch import RRDB as arch

OUT = pathlib.Path(__file__).resolve().parent / "generate-upscale"


def convolution(generator, n, c):
    weight = torch.randn(n, c, 3, 3, generator=generator) * (9 * c) ** -0.5
    return weight.half().float(), (0.2 * torch.randn(n, generator=generator)).half().float()


def network(generator, features=8, growth=4, blocks=2, ups=2, unshuffle=1):
    """A network under the names of BasicSR."""
    layers = {"conv_first": convolution(generator, features, 3 * unshuffle**2)}
    for i in range(blocks):
        for j in range(1, 4):
            for k in range(1, 6):
                n, c = (features if k == 5 else growth), features + (k - 1) * growth
                layers[f"body.{i}.rdb{j}.conv{k}"] = convolution(generator, n, c)
    for name in ["conv_body", *[f"conv_up{i + 1}" for i in range(ups)], "conv_hr"]:
        layers[name] = convolution(generator, features, features)
    layers["conv_last"] = convolution(generator, 3, features)
    return {f"{name}.{part}": t for name, pair in layers.items() for part, t in zip(["weight", "bias"], pair, strict=True)}


def numbered(state, blocks=2, ups=2):
    """The names of the first versions of ESRGAN, which Fooocus' file has."""
    ends = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}", "conv_hr": f"model.{2 + 3 * ups}"}
    ends |= {"conv_last": f"model.{4 + 3 * ups}"} | {f"conv_up{i + 1}": f"model.{3 + 3 * i}" for i in range(ups)}
    named = {}
    for name, tensor in state.items():
        layer, part = name.rsplit(".", 1)
        if layer not in ends:
            _, i, dense, conv = layer.split(".")
            ends[layer] = f"model.1.sub.{i}.{dense.upper()}.{conv}.0"
        named[f"{ends[layer]}.{part}"] = tensor
    return named


def trunk(state):
    """The names of ESRGAN's own code."""
    ends = dict(conv_body="trunk_conv", conv_up1="upconv1", conv_up2="upconv2", conv_hr="HRconv")
    named = {}
    for name, tensor in state.items():
        first, rest = name.split(".", 1)
        if first == "body":
            first, rest = "RRDB_trunk", rest.replace("rdb", "RDB")
        named[f"{ends.get(first, first)}.{rest}"] = tensor
    return named


def deflated(checkpoint, file):
    """As some of Fooocus' files are: the archive of PyTorch, packed again."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(zipfile.ZipInfo(name), plain.read(name), zipfile.ZIP_DEFLATED)


def half(state):
    return {name: tensor.half() for name, tensor in state.items()}


def in_tiles(x, function, tile, overlap, times, channels):
    """As ComfyUI's `tiled_scale`: weights fall to the borders of tiles."""
    size = [round(side * times) for side in x.shape[2:]]
    out, weights = torch.zeros(1, channels, *size), torch.zeros(1, channels, *size)
    feather = round(overlap * times)
    # None that would show nothing new.
    for top in range(0, max(x.shape[2] - overlap, 1), tile[0] - overlap):
        for left in range(0, max(x.shape[3] - overlap, 1), tile[1] - overlap):
            made = function(x[:, :, top : top + tile[0], left : left + tile[1]])
            mask = torch.ones_like(made)
            for dim in (2, 3):
                length = made.shape[dim]
                ramp = torch.arange(1, length + 1).clamp(max=feather) / feather
                mask *= (ramp * ramp.flip(0)).reshape((-1, 1) if dim == 2 else (1, -1))
            rows, columns = round(top * times), round(left * times)
            place = (..., slice(rows, rows + made.shape[2]), slice(columns, columns + made.shape[3]))
            out[place] += made * mask
            weights[place] += mask
    return out / weights


def on_average(x, function, tile, overlap, times, channels):
    shapes = [(tile, tile), (tile // 2, tile * 2), (tile * 2, tile // 2)]
    return sum(in_tiles(x, function, shape, overlap, times, channels) for shape in shapes) / 3


def flow(generator, network):
    how = dict(prompt="a hill", negative="the sea", steps=4, cfg=3.0, seed=9, factor=2.0, strength=0.4)
    pipeline = StableDiffusionXLImg2ImgPipeline.from_pretrained(PIPELINE / "model", torch_dtype=torch.float32)
    pipeline.scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    pipeline.set_progress_bar_config(disable=True)
    # What the folder has no files for.
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
        tokenizer.model_max_length = 77
    pipeline.tokenizer_2.pad_token = "!"
    vae = pipeline.vae.eval()
    # Long enough for several tiles, and with sides that become no multiples of 8.
    start = torch.rand(1, 3, 3, 30, generator=generator)
    start = torch.nn.functional.interpolate(start, (9, 265), mode="bilinear").mul(255).round().byte()
    larger = network(start.float() / 255).clamp(0, 1).mul(255).round().byte()
    larger = Image.fromarray(larger[0].permute(1, 2, 0).numpy()).resize((530, 18), Image.Resampling.LANCZOS)
    resampled = torch.from_numpy(np.array(larger))[1:17, 1:529]
    pixels = resampled.permute(2, 0, 1)[None] / 127.5 - 1
    latents = on_average(pixels, lambda x: vae.encode(x).latent_dist.mode(), 512, 64, 1 / 8, 4) * vae.config.scaling_factor
    steps = int(how["steps"] / how["strength"])
    made = pipeline(
        image=latents, strength=how["strength"], num_inference_steps=steps, prompt=how["prompt"], negative_prompt=how["negative"],
        guidance_scale=how["cfg"], generator=torch.Generator().manual_seed(how["seed"]), output_type="latent",
        # Targets are told in multiples of 64, as Fooocus does.
        original_size=(16, 528), target_size=(0, 512),
    ).images  # fmt: skip
    picture = on_average(made / vae.config.scaling_factor, lambda x: vae.decode(x).sample, 64, 16, 8, 3)
    picture = (picture / 2 + 0.5).clamp(0, 1)
    print("flow", tuple(picture.shape), f"{picture.mean():.3f} {picture.std():.3f}")
    (OUT / "flow.json").write_text(json.dumps(how, indent=1) + "\n")
    last = lambda x: x.permute(0, 2, 3, 1)[0].contiguous()
    tensors = {"start": last(start), "resampled": resampled.contiguous(), "picture": last(picture)}
    tensors |= {"latents": last(latents), "made": last(made)}
    save_file(tensors, OUT / "flow.safetensors")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    generator = torch.Generator().manual_seed(23)
    cases, golden, models = {}, {}, {}

    # spandrel has one growth, 32, which would make the files large.
    block = arch.B.RRDB
    growth = 4
    arch.B.RRDB = lambda *args, **values: block(*args, **values | {"gc": growth})

    def case(name, file, scale, state, save, size=(6, 7)):
        nonlocal growth
        growth = next(tensor.shape[0] for key, tensor in state.items() if key.endswith(("conv1.weight", "conv1.0.weight")))
        model = ModelLoader().load_from_state_dict(dict(state))
        assert model.scale == scale, (name, model.scale)
        save(OUT / file)
        picture = torch.rand(1, 3, *size, generator=generator)
        larger = model.model.eval()(picture)
        cases[name] = {"file": file, "scale": scale}
        models[name] = model.model
        for part, tensor in [("picture", picture), ("larger", larger)]:
            golden[f"{name}/{part}"] = tensor.permute(0, 2, 3, 1).contiguous()
        print(name, tuple(larger.shape), f"{larger.mean():.3f} {larger.std():.3f}")

    state = numbered(network(generator))
    case("fooocus", "fooocus.bin", 4, state, lambda file: torch.save(half(state), file))
    deflate = network(generator, features=6, growth=5, blocks=1)
    case("deflated", "deflated.pth", 4, deflate, lambda file: deflated({"params_ema": half(deflate)}, file))
    own = trunk(network(generator, blocks=1))
    old = dict(_use_new_zipfile_serialization=False)
    case("trunk", "trunk.pth", 4, own, lambda file: torch.save(half(own), file, **old), (1, 5))
    two = network(generator, unshuffle=2)
    average = {"params": {name: tensor + 1 for name, tensor in half(two).items()}, "params_ema": half(two)}
    case("x2plus", "x2plus.pth", 2, two, lambda file: torch.save(average, file), (7, 9))
    one = network(generator, unshuffle=4, blocks=1)
    case("x1", "x1.safetensors", 1, one, lambda file: save_file(half(one), file), (10, 5))
    for name, ups in [("numbered_x2", 1), ("numbered_x8", 3)]:
        state_of = numbered(network(generator, blocks=1, ups=ups), blocks=1, ups=ups)
        case(name, f"{name}.safetensors", 2**ups, state_of, lambda file, s=state_of: save_file(half(s), file), (4, 3))

    save_file(golden, OUT / "golden.safetensors")
    flow(generator, models["fooocus"])
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    for file in OUT.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
