#!/usr/bin/env python3
"""Write a Stable Diffusion 1.5 or SDXL folder with random float16 weights of the true names and shapes, for measuring
memory and time.  Pictures mean nothing.

    tools/random_pipeline.py sd15|sdxl FOLDER [--only unet]

Names and shapes are diffusers' and transformers' own (pip install torch diffusers transformers); no weight is downloaded.
The tokenizer is that of tests/goldens/clip-tokenizer."""
import argparse
import json
import math
import os
import shutil
import struct

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

VAE = dict(block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
           up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=2, sample_size=512)
CLIP_L = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
              max_position_embeddings=77, hidden_act="quick_gelu", eos_token_id=2)
CLIP_G = dict(vocab_size=49408, hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
              max_position_embeddings=77, hidden_act="gelu", projection_dim=1280, eos_token_id=2)
SD15 = dict(sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8)
SDXL = dict(sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048,
            attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)


def draw(name, shape, rng):
    """As layers keep variance: norms about 1, biases about 0, weights by their fan-in."""
    if len(shape) == 1:
        return rng.standard_normal(shape, dtype=np.float32) * 0.02 + (1 if "norm" in name and name.endswith("weight") else 0)
    return rng.standard_normal(shape, dtype=np.float32) / math.sqrt(np.prod(shape[1:]))


def write(path, tensors, seed):
    """A safetensors file, tensor after tensor, so that the whole model is never in memory."""
    header, at = {}, 0
    for name, shape in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            f.write(draw(name, shape, rng).astype(np.float16).tobytes())


def component(folder, name, model, file, seed, config=None):
    place = os.path.join(folder, name)
    os.makedirs(place)
    tensors = sorted((n, tuple(t.shape)) for n, t in model.state_dict().items() if "position_ids" not in n)
    write(os.path.join(place, file), tensors, seed)
    if config is None:
        model.save_config(place)
    else:
        with open(os.path.join(place, "config.json"), "w") as f:
            json.dump(config.to_diff_dict(), f, indent=2)
    print(f"{name}: {sum(int(np.prod(s)) for _, s in tensors):,} parameters")


def text_encoder(folder, end, sizes, projection, seed):
    config = CLIPTextConfig(**sizes)
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    with torch.device("meta"):
        model = kind(config)
    component(folder, "text_encoder" + end, model, "model.safetensors", seed, config)
    place = os.path.join(folder, "tokenizer" + end)
    shutil.copytree(os.path.join(os.path.dirname(__file__), "../tests/goldens/clip-tokenizer"), place)
    return ["transformers", kind.__name__], ["transformers", "CLIPTokenizer"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("sd15", "sdxl"))
    parser.add_argument("folder")
    parser.add_argument("--only", choices=("unet",), help="leave the other components out")
    a = parser.parse_args()
    os.makedirs(a.folder)
    xl = a.kind == "sdxl"
    index = {"_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"}
    with torch.device("meta"):
        unet = UNet2DConditionModel(**(SDXL if xl else SD15))
    component(a.folder, "unet", unet, "diffusion_pytorch_model.safetensors", 1)
    index["unet"] = ["diffusers", "UNet2DConditionModel"]
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)
    scheduler.save_config(os.path.join(a.folder, "scheduler"))
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    if not a.only:
        with torch.device("meta"):
            vae = AutoencoderKL(**VAE)
        component(a.folder, "vae", vae, "diffusion_pytorch_model.safetensors", 2)
        index["vae"] = ["diffusers", "AutoencoderKL"]
        index["text_encoder"], index["tokenizer"] = text_encoder(a.folder, "", CLIP_L, False, 3)
        if xl:
            index["text_encoder_2"], index["tokenizer_2"] = text_encoder(a.folder, "_2", CLIP_G, True, 4)
            index["force_zeros_for_empty_prompt"] = True
    with open(os.path.join(a.folder, "model_index.json"), "w") as f:
        json.dump(index, f, indent=2)


main()
