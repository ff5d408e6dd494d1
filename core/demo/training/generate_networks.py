"""The networks of the demo model that generates: the genuine modules of diffusers
and transformers with small sizes, and the schedule they are trained on."""

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from generate_pictures import SIDE
from generate_words import AROUND, LENGTH, vocabulary

SMALL, LARGE = 48, 64  # widths of the text encoders
SIZE_WIDTH = 8  # values that each of the six sizes becomes
VAE = {
    "sample_size": SIDE,
    "block_out_channels": [16, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "scaling_factor": 1.0,  # the spread of the latents is part of the weights
}
UNET = {
    "sample_size": SIDE // 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [40, 64],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "transformer_layers_per_block": 1,
    "attention_head_dim": [2, 4],  # numbers of heads; the name is an old mistake
    "cross_attention_dim": SMALL + LARGE,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": SIZE_WIDTH,
    "projection_class_embeddings_input_dim": LARGE + 6 * SIZE_WIDTH,
    "norm_num_groups": 8,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}


def text_config(width, layers, heads, activation):
    words = vocabulary()[0]
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=LENGTH,
        hidden_act=activation,
        projection_dim=width,
        bos_token_id=words[AROUND[0]],
        eos_token_id=words[AROUND[1]],
        pad_token_id=words[AROUND[1]],
    )


def text_encoders():
    """The smaller and the larger one; the states before their last layers are used."""
    small = CLIPTextModel(text_config(SMALL, 2, 3, "quick_gelu"))
    large = CLIPTextModelWithProjection(text_config(LARGE, 3, 4, "gelu"))
    with torch.no_grad():
        for model in (small, large):
            for name, p in model.named_parameters():
                if "token_embedding" in name:
                    # Parts of words, which are never trained, say next to nothing.
                    nn.init.normal_(p[:512], std=0.02)
                    nn.init.normal_(p[512:], std=0.5)
                elif "position_embedding" in name:
                    nn.init.normal_(p, std=0.1)
                elif p.ndim == 2:
                    nn.init.xavier_uniform_(p)
    return small, large


def autoencoder():
    return AutoencoderKL(**VAE)


def unet():
    model = UNet2DConditionModel(**UNET)
    nn.init.zeros_(model.conv_out.weight)
    return model


def scheduler():
    return EulerDiscreteScheduler(**SCHEDULER)


def count(module):
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    for network in (autoencoder(), unet(), *text_encoders()):
        print(type(network).__name__, count(network))
