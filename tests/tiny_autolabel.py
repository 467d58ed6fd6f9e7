"""Tiny, randomly initialised Grounding DINO, SAM 2 and SAM 3 models, saved to a folder with real processors.

They load as the published ones do; what they find means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

WORDS = ["a", "red", "stop", "sign", "bird", "zebra", "book", "s", "##s", "the", "of"]
SWIN = {
    "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 64, "out_indices": [2, 3, 4],
    "drop_path_rate": 0.0,
}  # fmt: skip


def bert_words():
    """A BERT tokenizer whose [CLS], [SEP], full stop and question mark have BERT's own ids, which Grounding DINO's code knows."""
    from transformers import BertTokenizer

    vocabulary = {f"[unused{k}]": k for k in range(1100)}
    for word, k in {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}.items():
        vocabulary = {w: i for w, i in vocabulary.items() if i != k} | {word: k}
    for k, word in enumerate(WORDS, 1040):
        vocabulary = {w: i for w, i in vocabulary.items() if i != k} | {word: k}
    return BertTokenizer(vocab=dict(sorted(vocabulary.items(), key=lambda pair: pair[1])))


def grounding_dino(folder: Path, seed: int = 0, family: str = "GroundingDino") -> Path:
    """Swin tower, two layers of BERT, encoder and decoder each; 30 queries. `family`: GroundingDino or MMGroundingDino."""
    import torch
    import transformers
    from transformers import BertConfig, GroundingDinoImageProcessor, GroundingDinoProcessor, SwinConfig

    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(
        backbone_config=SwinConfig(**SWIN),
        text_config=BertConfig(vocab_size=1100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64),
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64, encoder_attention_heads=2,
        decoder_attention_heads=2, num_queries=30,
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForObjectDetection")(config)
    processor = GroundingDinoProcessor(GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}), bert_words())
    return save(folder, model, processor)


def mm_grounding_dino(folder: Path, seed: int = 0) -> Path:
    return grounding_dino(folder, seed, "MMGroundingDino")


def sam2(folder: Path, seed: int = 0) -> Path:
    """Hiera tower at 64 pixels."""
    import torch
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2Processor,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    torch.manual_seed(seed)
    tower = Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2], window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3],
    )  # fmt: skip
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=tower, backbone_channel_list=[64, 32, 16, 8], backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=32,
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16, mask_input_channels=4),
        mask_decoder_config=Sam2MaskDecoderConfig(hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32),
    )  # fmt: skip
    processor = Sam2Processor(Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16}))
    return save(folder, Sam2Model(config), processor)


def sam3(folder: Path, seed: int = 0) -> Path:
    """Vision transformer at 56 pixels, CLIP text tower, 20 queries."""
    import torch
    from transformers import CLIPTokenizer, Sam3Config, Sam3ImageProcessor, Sam3Model, Sam3Processor

    torch.manual_seed(seed)
    alphabet = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = ["<|endoftext|>", "<|startoftext|>", *alphabet, *(f"{c}</w>" for c in alphabet)]
    words = CLIPTokenizer(vocab={piece: k for k, piece in enumerate(pieces)}, merges=[])
    text = {
        "vocab_size": len(pieces), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 32, "projection_dim": 16, "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }  # fmt: skip
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model", **small, "num_hidden_layers": 2, "image_size": 56, "patch_size": 14, "window_size": 2,
                "global_attn_indexes": [1], "pretrain_image_size": 56,
            },
            "fpn_hidden_size": 32, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={"model_type": "clip_text_model", **text},
        geometry_encoder_config={**small, "num_layers": 1}, detr_encoder_config={**small, "num_layers": 2},
        detr_decoder_config={**small, "num_layers": 2, "num_queries": 20},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )  # fmt: skip
    processor = Sam3Processor(Sam3ImageProcessor(size={"height": 56, "width": 56}, mask_size={"height": 16, "width": 16}), words)
    return save(folder, Sam3Model(config), processor)


def save(folder: Path, model, processor) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


DETECTORS: dict[str, Callable[..., Path]] = {"grounding_dino": grounding_dino, "mm_grounding_dino": mm_grounding_dino}
