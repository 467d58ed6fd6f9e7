"""Tiny, randomly initialised vision-language models of native transformers classes, saved to a folder with real processors.

They load as any model of their family does; what they answer means nothing.
"""

from __future__ import annotations

from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %} {% endfor %}"
    "</s>{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)
CORPUS = """yes no Yes No YES NO the mask is right and complete a bird book zebra stop sign is missing user assistant :
Examine this image showing object segmentation masks . The colored areas are the computer's identification of objects . answer reason"""


def tokenizer(special: list[str]):
    """A byte-level BPE tokenizer, trained on the spot."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<pad>", "<s>", "</s>", *special], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    raw.train_from_iterator([CORPUS] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def text_config(words) -> dict:
    return {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 2048, "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }  # fmt: skip


def llava(folder: Path, seed: int = 0) -> Path:
    """CLIP tower of 4 x 4 patches, two-layer Llama."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )  # fmt: skip

    torch.manual_seed(seed)
    words = tokenizer(["<image>"])
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, projection_dim=32
    )
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**text_config(words)), image_token_id=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer=words,
        patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )  # fmt: skip
    return save(folder, model, processor)


def qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """Pictures of any size, position ids in three dimensions."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor

    torch.manual_seed(seed)
    words, ids = qwen_words()
    config = Qwen3VLConfig(
        text_config={**text_config(words), "head_dim": 8, "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}},
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 8, "out_hidden_size": 32,
                       "spatial_merge_size": 2, "temporal_patch_size": 2, "deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        **ids,
    )  # fmt: skip
    model = Qwen3VLForConditionalGeneration(config)
    return save(folder, model, qwen_processor(Qwen3VLProcessor, Qwen3VLVideoProcessor, words, **QWEN_PIXELS))


def qwen3_5(folder: Path, seed: int = 0) -> Path:
    """Pictures as in Qwen3-VL; of two layers one is a gated delta rule, whose state runs through the padding too unless that is masked."""
    import torch
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor

    torch.manual_seed(seed)
    words, ids = qwen_words()
    config = Qwen3_5Config(
        text_config={**text_config(words), "head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
                     "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0,
                                         "mrope_section": [2, 1, 1], "mrope_interleaved": True}},
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 8, "out_hidden_size": 32,
                       "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64},
        **ids,
    )  # fmt: skip
    model = Qwen3_5ForConditionalGeneration(config)
    return save(folder, model, qwen_processor(Qwen3VLProcessor, Qwen3VLVideoProcessor, words, **QWEN_PIXELS))


def gemma4(folder: Path, seed: int = 0) -> Path:
    """Attention within a window and to all; the head shares the embedding's weights."""
    import torch
    from transformers import (
        Gemma4AudioFeatureExtractor,
        Gemma4Config,
        Gemma4ForConditionalGeneration,
        Gemma4ImageProcessor,
        Gemma4Processor,
        Gemma4VideoProcessor,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(seed)
    marks = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>",
             "audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}  # fmt: skip
    raw = tokenizer([*marks.values(), "<|video|>"]).backend_tokenizer
    words = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", extra_special_tokens=marks)
    names = {"image_token_id": "<|image|>", "boi_token_id": "<|image>", "eoi_token_id": "<image|>", "video_token_id": "<|video|>"}
    config = Gemma4Config(
        text_config={**text_config(words), "head_dim": 8, "global_head_dim": 8, "sliding_window": 64,
                     "layer_types": ["sliding_attention", "full_attention"], "use_bidirectional_attention": "vision",
                     "vocab_size_per_layer_input": len(words), "hidden_size_per_layer_input": 8},
        vision_config={"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
                       "num_key_value_heads": 4, "head_dim": 8, "patch_size": 8, "pooling_kernel_size": 2, "position_embedding_size": 64},
        audio_config=None, **{name: words.convert_tokens_to_ids(mark) for name, mark in names.items()},
    )  # fmt: skip
    pixels = {"patch_size": 8, "pooling_kernel_size": 2}
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(), image_processor=Gemma4ImageProcessor(max_soft_tokens=70, **pixels),
        tokenizer=words, video_processor=Gemma4VideoProcessor(**pixels), chat_template=TEMPLATE.replace("IMAGE", "<|image|>"),
    )  # fmt: skip
    return save(folder, Gemma4ForConditionalGeneration(config), processor)


def qwen2_5_vl(folder: Path, seed: int = 0) -> Path:
    """The generation before: attention within windows of 2 x 2 merged patches but in the last layer."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, Qwen2VLVideoProcessor

    torch.manual_seed(seed)
    words, ids = qwen_words()
    config = Qwen2_5_VLConfig(
        text_config={**text_config(words), "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}},
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 8, "out_hidden_size": 32,
                       "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 32, "fullatt_block_indexes": [1]},
        **ids,
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config)
    return save(folder, model, qwen_processor(Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, words, **QWEN_PIXELS))


QWEN_PIXELS = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}


def qwen_words():
    """A tokenizer with the marks of the Qwen families, and the ids that their configs want."""
    marks = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
             "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}  # fmt: skip
    words = tokenizer(list(marks.values()))
    return words, {name: words.convert_tokens_to_ids(mark) for name, mark in marks.items()}


def qwen_processor(processor: type, video_processor: type, words, **pixels):
    from transformers import Qwen2VLImageProcessor

    template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    return processor(
        image_processor=Qwen2VLImageProcessor(**pixels), video_processor=video_processor(**pixels), tokenizer=words, chat_template=template
    )


def chain(folder: Path, template: str, then: dict[str, str | dict[str, float]], marks: tuple[str, ...] = ()) -> Path:
    """A LLaVA whose next token depends on the last one alone, so that it says what a test wants.

    Attention and feed-forward layers add nothing, and each token of the chain is a direction of its own.

    Args:
        template: the chat template, with IMAGE for a picture.
        then: by token, the next one, or {next: probability}. All of these become single tokens.
        marks: those that are special, which a plain decoding leaves out.
    """
    import math

    import torch
    from transformers import AddedToken, AutoModelForImageTextToText, AutoProcessor

    llava(folder)
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    words = processor.tokenizer
    after = {token: {to: 1.0} if isinstance(to, str) else to for token, to in then.items()}
    spoken = sorted({*after, *(to for nexts in after.values() for to in nexts)} - {"</s>"})
    words.add_tokens([AddedToken(token, special=token in marks, normalized=False) for token in spoken])
    model.resize_token_embeddings(len(words))
    ids = {token: words.convert_tokens_to_ids(token) for token in (*spoken, "</s>")}
    with torch.no_grad():
        text = model.model.language_model
        for layer in text.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        text.embed_tokens.weight.zero_()
        text.embed_tokens.weight[:, 0] = 1  # whatever is not in the chain
        model.lm_head.weight.zero_()
        length = math.sqrt(text.config.hidden_size)  # of a vector after the norm
        for direction, (token, nexts) in enumerate(after.items(), 1):
            text.embed_tokens.weight[ids[token]] = torch.eye(text.config.hidden_size)[direction]
            model.lm_head.weight[:, direction] = -40 / length  # e^-40 is nothing in float32
            for to, p in nexts.items():
                model.lm_head.weight[ids[to], direction] = math.log(p) / length
    processor.chat_template = template.replace("IMAGE", "<image>")
    return save(folder, model, processor)


def save(folder: Path, model, processor) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


FAMILIES = {"llava": llava, "qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl, "qwen3_5": qwen3_5, "gemma4": gemma4}
