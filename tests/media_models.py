"""Tiny models that see, with random weights and the real processors of their families, as folders that users bring."""

import importlib
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from benchmarks.zoo.architecture import scatter
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = ["What is on the mat? The cat sat on it. USER ASSISTANT user assistant image picture two one red blue."] * 2
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "head_dim": 8,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    # random weights would end a text as soon as write anything else
    "eos_token_id": None,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer(*special, **settings):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    known = ["<pad>", "<begin>", "<end>", *special]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=known, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(WORDS, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<begin>",
        eos_token="<end>",
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
        **settings,
    )


def image_processor(family, name, **settings):
    module = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    return getattr(module, f"{name}ImageProcessorPil")(**settings)


CLIP_SIZES = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}


def vit():
    config = transformers.ViTConfig(**VISION, num_labels=3)
    return (
        transformers.ViTForImageClassification(config),
        image_processor("vit", "ViT", size={"height": 28, "width": 28}),
    )


def dinov2():
    config = transformers.Dinov2WithRegistersConfig(**VISION, num_register_tokens=3, mlp_ratio=2)
    processor = image_processor("bit", "Bit", size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    return transformers.Dinov2WithRegistersModel(config), processor


def clip():
    text = {**TEXT, "vocab_size": 320, "eos_token_id": 2}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    parts = image_processor("clip", "CLIP", **CLIP_SIZES), tokenizer()
    return transformers.CLIPModel(config), transformers.CLIPProcessor(*parts)


def siglip():
    text = {**TEXT, "vocab_size": 320, "eos_token_id": 2}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    parts = image_processor("siglip", "Siglip", size={"height": 28, "width": 28}), tokenizer()
    return transformers.SiglipModel(config), transformers.SiglipProcessor(*parts)


def llava():
    words = tokenizer("<image>", chat_template=TEMPLATE.replace("IMAGE", "<image>\n"))
    text = transformers.LlamaConfig(**TEXT, vocab_size=len(words))
    config = transformers.LlavaConfig(
        text_config=text,
        vision_config=transformers.CLIPVisionConfig(**VISION),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    processor = transformers.LlavaProcessor(
        image_processor("clip", "CLIP", **CLIP_SIZES),
        words,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


QWEN = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN_SIZES = {"size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 84}, "patch_size": 7, "merge_size": 2}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}


def _qwen(words):
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return dict(zip(names, words.convert_tokens_to_ids(list(QWEN)), strict=True))


def qwen2_vl():
    template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    words = tokenizer(*QWEN, chat_template=template)
    config = transformers.Qwen2VLConfig(
        text_config={**TEXT, "vocab_size": len(words), "rope_parameters": MROPE},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 7},
        **_qwen(words),
    )
    parts = image_processor("qwen2_vl", "Qwen2VL", **QWEN_SIZES), words
    return transformers.Qwen2VLForConditionalGeneration(config), ("Qwen2VLProcessor", *parts)


FAMILIES = {
    "vit": vit,
    "dinov2": dinov2,
    "clip": clip,
    "siglip": siglip,
    "llava": llava,
    "qwen2_vl": qwen2_vl,
}


# those that write about pictures
WRITERS = ("llava", "qwen2_vl")


def make(name, folder):
    """The folder of a tiny model of a family, as `save_pretrained` writes it."""
    torch.manual_seed(0)
    module, processor = FAMILIES[name]()
    scatter(module, 1.5)
    module.eval().save_pretrained(folder)
    if isinstance(processor, tuple):
        # one that has a part for videos, which needs torchvision
        name, images, words = processor
        images.save_pretrained(folder)
        words.save_pretrained(folder)
        settings = Path(folder, "preprocessor_config.json")
        values = json.loads(settings.read_text(encoding="utf-8"))
        settings.write_text(json.dumps({**values, "processor_class": name}), encoding="utf-8")
    else:
        processor.save_pretrained(folder)
    return Path(folder)


def picture(width=60, height=40, seed=0):
    """A picture of noise, smooth enough to be resized."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
