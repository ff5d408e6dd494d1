"""The networks of the demo edit model: the genuine modules of diffusers and
transformers with small sizes, how they start, and the schedule they run on."""

import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

LATENTS = 8  # channels of the autoencoder's latents
TEXT = 64  # width of the text encoder
VAE = {
    "base_dim": 16,
    "z_dim": LATENTS,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [False, False, False],
    "latents_mean": [0.0] * LATENTS,
    "latents_std": [1.0] * LATENTS,
}
TRANSFORMER = {
    "patch_size": 2,
    "in_channels": 4 * LATENTS,
    "out_channels": LATENTS,
    "num_layers": 4,
    "attention_head_dim": 32,
    "num_attention_heads": 3,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (8, 12, 12),
    "zero_cond_t": True,
}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 0.9,
    "base_image_seq_len": 256,
    "max_image_seq_len": 8192,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
}


def text_config(tokenizer, rows=672):
    id_of = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": rows,
            "hidden_size": TEXT,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "bos_token_id": id_of("<|endoftext|>"),
            "eos_token_id": id_of("<|im_end|>"),
            "pad_token_id": id_of("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": TEXT,
            "fullatt_block_indexes": [1],
            "window_size": 112,
        },
        image_token_id=id_of("<|image_pad|>"),
        video_token_id=id_of("<|video_pad|>"),
        vision_start_token_id=id_of("<|vision_start|>"),
        vision_end_token_id=id_of("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def spread(module):
    """Starts every matrix of a module by Xavier's rule, with zero biases."""
    for name, p in module.named_parameters():
        if p.ndim >= 2:
            nn.init.xavier_uniform_(p.view(len(p), -1))
        elif name.endswith("bias"):
            nn.init.zeros_(p)


def autoencoder():
    """An autoencoder of which only single pictures make use: of the three
    moments that a kernel sees, all but the last stay zero."""
    vae = AutoencoderKLQwenImage(**VAE)
    with torch.no_grad():
        for p in vae.parameters():
            if p.ndim == 5 and p.shape[2] == 3:
                p[:, :, 2] *= 3**0.5
                p[:, :, :2] = 0
    return vae


def transformer():
    model = QwenImageTransformer2DModel(**TRANSFORMER)
    spread(model)
    with torch.no_grad():
        width = model.inner_dim
        for block in model.transformer_blocks:
            for mod in (block.img_mod[1], block.txt_mod[1]):
                mod.weight.zero_()
                for gate in (2, 5):
                    mod.bias[gate * width : (gate + 1) * width] = 0.5
        model.norm_out.linear.weight.zero_()
        model.proj_out.weight.zero_()
    return model


def text_encoder(tokenizer):
    model = Qwen2_5_VLForConditionalGeneration(text_config(tokenizer))
    spread(model.model)
    nn.init.normal_(model.model.language_model.embed_tokens.weight, std=0.5)
    return model


def scheduler():
    return FlowMatchEulerDiscreteScheduler(**SCHEDULER)


if __name__ == "__main__":
    from edit_words import tokenizer

    for network in (autoencoder(), transformer(), text_encoder(tokenizer())):
        print(type(network).__name__, sum(p.numel() for p in network.parameters()))
