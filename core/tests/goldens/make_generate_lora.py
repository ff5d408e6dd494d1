"""Writes `generate-lora/`: LoRA files for the model of `generate-pipeline/`, and what its weights are with them.

- `lora_<case>.safetensors` are files in one spelling or of one kind each, and `cases.json` says how strongly they are applied.
- `merged.safetensors` has, under `<case>/<network>/<weight>`, every seventh value of all weights that they change. Where diffusers reads the file, diffusers
  and peft merged them, in f32 (`"by": "diffusers"`); where it does not, torch did, by the definition of the kind (`"by": "formula"`).
- `picture.safetensors` has a picture that diffusers makes with the weights of the case `kohya`.

    pip install -r requirements.txt && python make_generate_lora.py
"""

import json
import pathlib

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from make_generate_pipeline import BETAS
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE / "generate-pipeline" / "model"
OUT = HERE / "generate-lora"
RANK = 3
EVERY = 7
NETWORKS = ("unet", "text_encoder", "text_encoder_2")

LINEAR = [
    "down_blocks.1.attentions.0.proj_in",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.0.attentions.1.transformer_blocks.1.attn1.to_out.0",
]
PROCESSORS = [layer for layer in LINEAR if ".attn" in layer]
OTHERS = ["time_embedding.linear_2", "down_blocks.1.resnets.0.time_emb_proj"]
# Silently left out by diffusers where points became underscores.
ADDED = ["add_embedding.linear_1"]
CONVOLUTIONS = [
    "conv_in",
    "conv_out",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.conv_shortcut",
    "mid_block.resnets.1.conv1",
    "up_blocks.0.resnets.0.conv2",
    "up_blocks.0.upsamplers.0.conv",
]
TEXT = ["encoder.layers.0.self_attn.q_proj", "encoder.layers.2.self_attn.out_proj", "encoder.layers.3.mlp.fc1"]

# Of the network above, by hand: two layers to a stage on the way down, the second of which changes the size.
LDM = {
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    ".conv1": ".in_layers.2",
    ".conv2": ".out_layers.3",
    ".conv_shortcut": ".skip_connection",
    ".time_emb_proj": ".emb_layers.1",
}


def ldm(layer):
    for now, old in LDM.items():
        if now.startswith("."):
            layer = layer.removesuffix(now) + old if layer.endswith(now) else layer
        elif layer == now or layer.startswith(now + "."):
            layer = old + layer.removeprefix(now)
    return layer


def flat(prefix, name=lambda layer: layer):
    return lambda layer: prefix + name(layer).replace(".", "_")


def pipeline_of(folder):
    """The model of a folder: diffusers refuses some of what this small one has no files for."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, add_watermarker=False,
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", torch_dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2", model_max_length=77, pad_token="!"),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main():
    OUT.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(21)
    folders = dict(unet="unet/diffusion_pytorch_model", text_encoder="text_encoder/model", text_encoder_2="text_encoder_2/model")
    weights = {name: load_file(MODEL / f"{file}.safetensors") for name, file in folders.items()}
    weights = {name: {key: value.float() for key, value in values.items()} for name, values in weights.items()}
    # What the weights of a network are called in its file.
    stored = lambda network, layer: next(
        name for name in (f"{layer}.weight", f"text_model.{layer}.weight") if name in weights[network]
    )
    random = lambda *shape, scale=0.3: torch.randn(*shape, generator=generator) * scale

    def shape(network, layer):
        return weights[network][stored(network, layer)].shape

    def product(network, layer):
        rows, inputs, *kernel = shape(network, layer)
        return random(RANK, inputs, *kernel), random(rows, RANK, *[1 for _ in kernel])

    def file(layers, down, up, names, alpha=None, dtype=torch.float32):
        """Tensors, and what is added to each weight."""
        tensors, added = {}, {}
        for network, all in layers.items():
            for layer in all:
                a, b = product(network, layer)
                a, b = a.to(dtype), b.to(dtype)
                name = names[network](layer)
                tensors[f"{name}.{down[network] if isinstance(down, dict) else down}"] = a
                tensors[f"{name}.{up[network] if isinstance(up, dict) else up}"] = b
                scale = 1.0
                if alpha is not None:
                    tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=dtype)
                    scale = float(tensors[f"{name}.alpha"]) / RANK
                change = scale * b.float().flatten(1) @ a.float().flatten(1)
                added[network, layer] = change.reshape(shape(network, layer))
        return tensors, added

    plain = {network: (lambda layer, network=network: f"{network}.{layer}") for network in NETWORKS}
    text = {network: (lambda layer, network=network: f"{network}.text_model.{layer}") for network in NETWORKS[1:]}
    everything = dict(unet=LINEAR + OTHERS + CONVOLUTIONS, text_encoder=TEXT, text_encoder_2=TEXT)
    more = everything | dict(unet=everything["unet"] + ADDED)
    kohya = dict(
        unet=flat("lora_unet_"),
        text_encoder=flat("lora_te1_text_model_"),
        text_encoder_2=flat("lora_te2_text_model_"),
    )
    peft = ("lora_A.weight", "lora_B.weight")
    down_up = ("lora_down.weight", "lora_up.weight")
    old = [
        dict(unet=f"lora.{half}.weight", text_encoder=f"lora_linear_layer.{half}.weight", text_encoder_2=f"lora_linear_layer.{half}.weight")
        for half in ("down", "up")
    ]  # fmt: skip
    noted = dict(r=RANK, lora_alpha=6, alpha_pattern={}, rank_pattern={}, use_dora=False, use_rslora=False)
    notes = {f"{network}.{key}": value for network in NETWORKS for key, value in noted.items()}
    for name in NETWORKS:
        notes[f"{name}.target_modules"] = [layer.removeprefix("text_model.") for layer in everything[name]]

    def processor(layer):
        front, name = layer.removesuffix(".0").rsplit(".", 1)
        return f"unet.{front}.processor.{name}_lora"

    cases = {
        "diffusers": (file(everything, *peft, plain | text), 1.0, None),
        "noted": (file(dict(unet=LINEAR + CONVOLUTIONS), *peft, plain), 0.5, {k: v for k, v in notes.items() if k.startswith("unet.")}),
        "old": (file(dict(unet=LINEAR, text_encoder=TEXT, text_encoder_2=TEXT), *old, plain | text), 0.7, None),
        "processor": (file(dict(unet=PROCESSORS), "down.weight", "up.weight", dict(unet=processor)), 1.0, None),
        "kohya": (file(everything, *down_up, kohya, alpha=2.0), 1.0, None),
        "kohya_f16": (file(everything, *down_up, kohya, alpha=1.5, dtype=torch.float16), -0.6, None),
        "kohya_ldm": (file(more, *down_up, kohya | dict(unet=flat("lora_unet_", ldm)), alpha=2.0), 1.0, None),
        "ldm": (file(dict(unet=more["unet"]), *peft, dict(unet=lambda layer: f"diffusion_model.{ldm(layer)}")), 1.0, None),
        "peft": (file(dict(unet=more["unet"]), *peft, dict(unet=lambda layer: f"base_model.model.{layer}")), 1.0, None),
    }
    formula = {"kohya_ldm", "ldm", "peft", "processor"}

    # The kinds that diffusers does not read, on a linear layer, convolutions and a text encoder.
    some = dict(unet=[LINEAR[1], LINEAR[3], CONVOLUTIONS[0], CONVOLUTIONS[4]], text_encoder=TEXT[:1], text_encoder_2=TEXT[2:])

    def kind(make):
        tensors, added = {}, {}
        for network, layers in some.items():
            for layer in layers:
                new, change = make(shape(network, layer))
                tensors |= {f"{kohya[network](layer)}.{key}": value.contiguous() for key, value in new.items()}
                added[network, layer] = change.reshape(shape(network, layer))
        return tensors, added

    def cp(full):
        """A product with a kernel in between."""
        rows, inputs, *kernel = full
        if not kernel:
            down, up = random(RANK, inputs), random(rows, RANK)
            return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2.0)}, 2 / RANK * up @ down
        down, mid, up = random(RANK + 1, inputs, 1, 1), random(RANK, RANK + 1, *kernel), random(rows, RANK, 1, 1)
        change = torch.einsum("oa,abhw,bi->oihw", up[..., 0, 0], mid, down[..., 0, 0])
        tensors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(2.0)}
        return tensors, 2 / (RANK + 1) * change

    def loha(cored):
        def make(full):
            rows, inputs, *kernel = full
            tensors, both = {"alpha": torch.tensor(2.0)}, []
            for i in (1, 2):
                if cored and kernel:
                    t, a, b = random(RANK, RANK, *kernel), random(RANK, rows), random(RANK, inputs)
                    tensors |= {f"hada_t{i}": t, f"hada_w{i}_a": a, f"hada_w{i}_b": b}
                    both.append(torch.einsum("ijkl,jr,ip->prkl", t, b, a))
                else:
                    a, b = random(rows, RANK), random(RANK, full[1:].numel())
                    tensors |= {f"hada_w{i}_a": a, f"hada_w{i}_b": b}
                    both.append((a @ b).reshape(full))
            return tensors, 2 / RANK * both[0] * both[1]

        return make

    def lokr(first, second):
        def make(full):
            rows, inputs, *kernel = full
            split = lambda size: next((n for n in (4, 2) if size % n == 0), 1)
            (a, c), (b, d) = (split(rows), rows // split(rows)), (split(inputs), inputs // split(inputs))
            tensors, scale = {"alpha": torch.tensor(2.0)}, 1.0
            if first == "whole":
                tensors["lokr_w1"] = w1 = random(a, b)
            else:
                tensors |= {"lokr_w1_a": random(a, RANK), "lokr_w1_b": random(RANK, b)}
                w1, scale = tensors["lokr_w1_a"] @ tensors["lokr_w1_b"], 2 / RANK
            if second == "whole":
                tensors["lokr_w2"] = w2 = random(c, d, *kernel)
            elif second == "core" and kernel:
                t, left, right = random(RANK, RANK, *kernel), random(RANK, c), random(RANK, d)
                tensors |= {"lokr_t2": t, "lokr_w2_a": left, "lokr_w2_b": right}
                w2, scale = torch.einsum("ijkl,jr,ip->prkl", t, right, left), 2 / RANK
            else:
                left, right = random(c, RANK), random(RANK, d * full[2:].numel())
                tensors |= {"lokr_w2_a": left, "lokr_w2_b": right}
                w2, scale = (left @ right).reshape(c, d, *kernel), 2 / RANK
            return tensors, scale * torch.kron(w1[..., None, None] if kernel else w1, w2.contiguous())

        return make

    kinds = {
        "cp": cp,
        "loha": loha(False),
        "loha_core": loha(True),
        "lokr_whole": lokr("whole", "whole"),
        "lokr": lokr("whole", "factors"),
        "lokr_factors": lokr("factors", "core"),
        "lokr_first": lokr("factors", "whole"),
    }
    cases |= {name: (kind(make), 0.8, None) for name, make in kinds.items()}
    formula |= set(kinds)

    merged, listed = {}, {}
    for case, ((tensors, added), scale, noted) in cases.items():
        path = OUT / f"lora_{case}.safetensors"
        metadata = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(noted)} if noted else {})
        save_file(tensors, path, metadata=metadata)
        if noted:
            added = {key: value * noted["unet.lora_alpha"] / RANK for key, value in added.items()}
        expected = {
            (network, stored(network, layer)): weights[network][stored(network, layer)] + scale * change
            for (network, layer), change in added.items()
        }
        by = "formula"
        if case not in formula:
            pipeline = pipeline_of(MODEL)
            pipeline.load_lora_weights(path, adapter_name="a", low_cpu_mem_usage=False)
            pipeline.set_adapters(["a"], [scale])
            pipeline.fuse_lora()
            worst = 0.0
            for network in NETWORKS:
                state = {k.replace(".base_layer", ""): v for k, v in getattr(pipeline, network).state_dict().items()}
                for key in [key for key in expected if key[0] == network]:
                    names = (key[1], f"text_model.{key[1]}", key[1].removeprefix("text_model."))
                    value = next(state[name] for name in names if name in state).clone()
                    worst = max(worst, (value - expected[key]).abs().max().item())
                    expected[key] = value
            assert worst < 1e-5, (case, worst)
            by = "diffusers"
        least = min((value - weights[n][w]).abs().max().item() for (n, w), value in expected.items())
        print(f"{case}: {len(expected)} weights, by {by}; the smallest change is {least:.3f}")
        assert least > 1e-3
        merged |= {f"{case}/{network}/{weight}": value.flatten()[::EVERY].clone() for (network, weight), value in expected.items()}
        listed[case] = dict(scale=scale, by=by)
    save_file(merged, OUT / "merged.safetensors")
    (OUT / "cases.json").write_text(json.dumps(listed, indent=1) + "\n")

    pipeline = pipeline_of(MODEL)
    pipeline.load_lora_weights(OUT / "lora_kohya.safetensors", adapter_name="a", low_cpu_mem_usage=False)
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    scheduler.set_timesteps(4)
    pipeline.scheduler = scheduler
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    noise *= (1 + float(scheduler.sigmas[0]) ** 2) ** 0.5 / float(scheduler.init_noise_sigma)
    values = pipeline(
        prompt="a red cat", negative_prompt="bad", guidance_scale=7.0, output_type="pt", width=64, height=64, latents=noise,
        num_inference_steps=4, original_size=(64, 64), target_size=(64, 64),
    ).images[0]  # fmt: skip
    save_file({"picture": values.permute(1, 2, 0).contiguous()}, OUT / "picture.safetensors")


if __name__ == "__main__":
    main()
