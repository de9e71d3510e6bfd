"""A tiny NLLB that has learnt nothing, as Hugging Face has it and as CTranslate2 converts it."""

import json
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import M2M100Config, M2M100ForConditionalGeneration

from services.translator.engines.nllb import Nllb, load_tokenizer
from services.translator.engines.nllb_ctranslate2 import CTranslate2Nllb
from services.translator.engines.nllb_nllw import Nllw
from services.translator.engines.nllb_transformers import TransformersNllb

CODES = ("eng_Latn", "fra_Latn", "por_Latn", "zho_Hans")
_TEXT = ["the cat sat on the mat and the dog ran", "le chat est sur le tapis", "o gato e o cão"]
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def save(folder: Path) -> Path:
    """Make a model and write it as transformers does, with its tokenizer."""
    source = folder / "toy"
    tokenizer: Any = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=[*_SPECIAL], show_progress=False)
    tokenizer.train_from_iterator(_TEXT * 20, trainer)
    tokenizer.add_special_tokens([*CODES, "<mask>"])
    torch.manual_seed(0)
    model: Any = M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=tokenizer.get_vocab_size(),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=512,
            tie_word_embeddings=False,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.6)
        # What has learnt nothing would say these as often as words.
        model.lm_head.weight[:4] *= 0.1
        model.lm_head.weight[-5:] *= 0.1
    model.save_pretrained(source)
    tokenizer.save(str(source / "tokenizer.json"))
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), _SPECIAL, strict=True))
    settings = {
        "tokenizer_class": "NllbTokenizer",
        "mask_token": "<mask>",
        "extra_special_tokens": CODES,
    }
    (source / "tokenizer_config.json").write_text(json.dumps(names | settings))
    return source


def convert(source: Path) -> Path:
    """Write a model as CTranslate2 does, with its tokenizer."""
    folder = source.parent / "converted" / source.name
    ctranslate2.converters.TransformersConverter(str(source)).convert(str(folder), force=True)
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    return folder


def on_transformers(folder: Path) -> Nllb:
    network = TransformersNllb(folder, device="cpu", compute_type="float32", threads=1)
    return Nllb(folder.name, load_tokenizer(folder), network)


def on_nllw(folder: Path) -> Nllw:
    return Nllw(folder, device="cpu", compute_type="float32", threads=1)


def on_ctranslate2(folder: Path) -> Nllb:
    tokenizer = load_tokenizer(folder)
    network = CTranslate2Nllb(folder, tokenizer, device="cpu", compute_type="float32", workers=1)
    return Nllb(folder.name, tokenizer, network)
