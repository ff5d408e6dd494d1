"""Writes `edit-pipeline/`: a small model in a folder as published, and the pictures that diffusers makes with it.

All parts have random weights that are perturbed everywhere, with values that bfloat16 has and files hold. The three
published pipelines share them: `Edit`, `EditPlus` (2509) and `EditPlus` with `zero_cond_t` (2511), which tests choose by
changing `model_index.json` and `transformer/config.json`. The areas that diffusers scales references to are constants of
its code; here they are replaced by small ones, which `model_index.json` says under `tagbrush`.

Everything runs in f32, one call for each output, and with `mm_token_type_ids`, which the pipelines forget: without them
transformers 5 gives all tokens positions on a line.

- `lora.safetensors` changes the transformer where a call says how strongly.
- `golden.json` lists the calls; pictures are drawn by the formula of `make_edit.py`.
- `golden.safetensors` has what call `i` made, `(height, width, 3)` in 8 bits.

    pip install -r requirements.txt && python make_edit_pipeline.py
"""

import json
import math
import pathlib
import shutil

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit as single
import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as plus
import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from make_edit import PUBLISHED, picture

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "edit-pipeline"
AREA, VISION_AREA = 96 * 96, 64 * 64

TRANSFORMER = dict(
    patch_size=2, in_channels=16, out_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=32, axes_dims_rope=(4, 8, 4), guidance_embeds=False,
)  # fmt: skip
VAE = dict(
    base_dim=4, z_dim=4, dim_mult=[1, 2, 2, 3], num_res_blocks=1, temperal_downsample=[False, True, True],
    latents_mean=[-0.7, 0.3, 0.05, 1.1], latents_std=[2.8, 1.4, 0.7, 1.9],
)  # fmt: skip
TEXT = dict(
    hidden_size=32, intermediate_size=40, num_attention_heads=4, num_hidden_layers=2, num_key_value_heads=2,
    rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=False, hidden_act="silu", model_type="qwen2_5_vl",
    rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]},
    vision_config=dict(
        depth=2, hidden_act="silu", hidden_size=16, intermediate_size=20, num_heads=2, in_chans=3, out_hidden_size=32,
        patch_size=14, spatial_merge_size=2, window_size=56, fullatt_block_indexes=[1], temporal_patch_size=2,
    ),
)  # fmt: skip

# Width and height of pictures; `size` is what is asked for. Steps are three or more: two see neither shift nor rounding.
CALLS = [
    dict(pipeline="edit", images=[[200, 100]], prompt="Make the sky blue.", steps=3, cfg=1.0, seed=0),
    dict(pipeline="edit", images=[[60, 150]], prompt="把背景换成海边的日落，保持人物不变。", negative=" ", steps=4, cfg=4.0, seed=7),
    dict(pipeline="edit", images=[[100, 100]], prompt="night", negative="stars", steps=3, cfg=2.5, seed=2**32 + 5, size=[120, 70]),
    dict(pipeline="plus", images=[[90, 130]], prompt="Make the sky blue.", negative=" ", steps=3, cfg=4.0, seed=1),
    dict(pipeline="plus", images=[[200, 100], [60, 150]], prompt="Replace the sign with “你好”", steps=3, cfg=1.0, seed=3),
    dict(pipeline="zero", images=[[120, 90]], prompt="make it night", steps=4, cfg=1.0, seed=5),
    dict(pipeline="zero", images=[[64, 64], [130, 90], [50, 90]], prompt="换成", negative="blue", steps=3, cfg=3.0, seed=9, size=[64, 96]),
    dict(pipeline="zero", images=[[120, 90]], prompt="make it night", steps=4, cfg=1.0, seed=5, lightning=True),
    dict(pipeline="zero", images=[[120, 90]], prompt="make it night", steps=3, cfg=1.0, seed=5, lora=0.75),
    # The same twice; the last one in bfloat16.
    dict(pipeline="zero", images=[[120, 90]], prompt="make it night", negative=" ", steps=3, cfg=4.0, seed=5),
    dict(pipeline="zero", images=[[120, 90]], prompt="make it night", negative=" ", steps=3, cfg=4.0, seed=5, bf16=True),
]  # fmt: skip


def randomise(model, generator):
    """Fills every parameter so that each of them changes the answer, with values that bfloat16 has."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("gamma") or (name.endswith("weight") and parameter.ndim == 1):
            value = 1 + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.2 * noise
        elif "embed_tokens" in name:
            value = noise
        else:
            planes = parameter.shape[2] if isinstance(model, AutoencoderKLQwenImage) and parameter.ndim == 5 else 1
            value = noise * (parameter[0].numel() / planes) ** -0.5
        parameter.data.copy_(value.bfloat16())
    return model.eval()


def save(model, folder, file):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    save_tensors(tensors, folder / file, metadata={"format": "pt"})


def text_encoder(tokenizer, generator):
    ids = {name: tokenizer.token_to_id(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start", "vision_end")}
    config = TEXT | dict(
        vocab_size=tokenizer.get_vocab_size(), image_token_id=ids["image_pad"], video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"], vision_end_token_id=ids["vision_end"],
    )  # fmt: skip
    model = randomise(Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(json.loads(json.dumps(config)))), generator)
    forward = model.forward

    def told(**inputs):
        return forward(**inputs, mm_token_type_ids=(inputs["input_ids"] == config["image_token_id"]).int())

    model.forward = told
    folder = OUT / "text_encoder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    # The names of the time, in two files with an index.
    names = {
        name: name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        for name in model.state_dict()
    }
    tensors = {names[name]: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    files = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    where = {name: files[i % 2] for i, name in enumerate(sorted(tensors))}
    for file in files:
        save_tensors({name: tensors[name] for name in tensors if where[name] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}, indent=0) + "\n")
    return model


def parts():
    """The modules of a pipeline, saved as they are published."""
    generator = torch.Generator().manual_seed(4)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    transformer = randomise(QwenImageTransformer2DModel(**TRANSFORMER), generator)
    vae = randomise(AutoencoderKLQwenImage(**VAE), generator)
    for name, model in (("transformer", transformer), ("vae", vae)):
        model.save_config(OUT / name)
        save(model, OUT / name, "diffusion_pytorch_model.safetensors")
    tokenizer = Tokenizer.from_file(str(HERE / "edit" / "tokenizer.json"))
    fast = Qwen2Tokenizer(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None)
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056),
        tokenizer=fast, video_processor=Qwen2VLVideoProcessor(), chat_template="",
    )  # fmt: skip
    for folder, file in (("processor", "preprocessor_config.json"), ("scheduler", "scheduler_config.json")):
        (OUT / folder).mkdir()
    shutil.copy(HERE / "edit" / "preprocessor_min_pixels.json", OUT / "processor" / "preprocessor_config.json")
    shutil.copy(HERE / "edit" / "tokenizer.json", OUT / "processor" / "tokenizer.json")
    (OUT / "scheduler" / "scheduler_config.json").write_text(json.dumps(PUBLISHED, indent=1) + "\n")
    index = {"_class_name": "QwenImageEditPipeline", "_diffusers_version": "0.36.0"}
    index |= {name: ["diffusers", type(part).__name__] for name, part in (("transformer", transformer), ("vae", vae))}
    index["tagbrush"] = {"reference_area": AREA, "vision_area": VISION_AREA}
    (OUT / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    lora(transformer)
    zero = QwenImageTransformer2DModel(**TRANSFORMER, zero_cond_t=True).eval()
    zero.load_state_dict(transformer.state_dict())
    transformers = {"edit": transformer, "plus": transformer, "zero": zero}
    return transformers, dict(vae=vae, text_encoder=text_encoder(tokenizer, generator), tokenizer=fast, processor=processor)


def lora(transformer):
    """Small changes to layers of all kinds, in the names and with the alpha of the Lightning files."""
    generator = torch.Generator().manual_seed(6)
    layers = ["attn.to_q", "attn.add_v_proj", "attn.to_out.0", "img_mlp.net.0.proj", "txt_mlp.net.2", "img_mod.1"]
    tensors = {}
    for layer in layers:
        name = f"transformer_blocks.1.{layer}"
        n, k = transformer.get_submodule(name).weight.shape
        tensors[f"{name}.lora_down.weight"] = torch.randn(4, k, generator=generator) * k**-0.5
        tensors[f"{name}.lora_up.weight"] = torch.randn(n, 4, generator=generator)
        tensors[f"{name}.alpha"] = torch.tensor(2.0)
    save_tensors({name: tensor.bfloat16() for name, tensor in tensors.items()}, OUT / "lora.safetensors")


def small_areas():
    def small(dimensions):
        return lambda area, ratio: dimensions(AREA if area == 1024 * 1024 else area, ratio)

    for module in (single, plus):
        module.calculate_dimensions = small(module.calculate_dimensions)
    plus.VAE_IMAGE_SIZE, plus.CONDITION_IMAGE_SIZE = AREA, VISION_AREA


def call(transformers, modules, case):
    kind = single.QwenImageEditPipeline if case["pipeline"] == "edit" else plus.QwenImageEditPlusPipeline
    shift = {"base_shift": math.log(3), "max_shift": math.log(3), "shift_terminal": None} if "lightning" in case else {}
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(PUBLISHED | shift)
    pipe = kind(**modules, transformer=transformers[case["pipeline"]], scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    pipe.unload_lora_weights()
    if "lora" in case:
        pipe.load_lora_weights(OUT, weight_name="lora.safetensors", adapter_name="small")
        pipe.set_adapters("small", case["lora"])
    if "bf16" in case:
        pipe.to(torch.bfloat16)
    images = [picture(*size) for size in case["images"]]
    size = dict(zip(("width", "height"), case["size"])) if "size" in case else {}
    made = pipe(
        image=images[0] if kind is single.QwenImageEditPipeline else images,
        prompt=case["prompt"],
        negative_prompt=case.get("negative"),
        true_cfg_scale=case["cfg"],
        num_inference_steps=case["steps"],
        generator=torch.Generator().manual_seed(case["seed"]),
        output_type="np",
        **size,
    ).images[0]
    return np.ascontiguousarray((made * 255).round().astype(np.uint8))


def main():
    transformers, modules = parts()
    small_areas()
    tensors = {}
    for i, case in enumerate(CALLS):
        made = call(transformers, modules, case)
        tensors[str(i)] = made
        flat = (made == 0).mean() + (made == 255).mean()
        print(f"{i}: {made.shape}, deviation {made.std():.1f}, at an end {flat:.3f}")
    save_file(tensors, OUT / "golden.safetensors")
    (OUT / "golden.json").write_text(json.dumps(CALLS, indent=1, ensure_ascii=False) + "\n")
    for file in OUT.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
