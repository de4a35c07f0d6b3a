"""Tiny random models and tokenizers of several families, written as folders."""

from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

TEXT = (
    "Ann holds a red box . Bob gives the box to Ann . Who holds the box ? Answer: Ann\n"
    "Think step by step, then give the answer. Give the answer only. So 2 + 2 = 4.\n"
    "the quick brown fox jumps over the lazy dog (A) yes (B) no system user assistant"
)
SPECIALS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<unk>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENIZERS = ("byte_level", "metaspace", "word_level")
FAMILIES = ("llama", "lfm2", "bloom", "qwen2")


def tiny_tokenizer(kind: str, template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Return a tokenizer trained on TEXT: byte_level BPE, metaspace BPE or word_level."""
    if kind == "byte_level":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=SPECIALS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "metaspace":
        raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        raw.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always"), decoders.Fuse()]
        )
        bytes_ = [f"<0x{i:02X}>" for i in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=SPECIALS + bytes_, show_progress=False
        )
    else:
        raw = Tokenizer(models.WordLevel(unk_token="<unk>"))
        raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(special_tokens=SPECIALS, show_progress=False)
    raw.train_from_iterator(TEXT.split("\n") if kind == "metaspace" else [TEXT], trainer)
    raw.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIALS]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=template,
    )


def tiny_model(family: str, n_tokens: int, seed: int = 0) -> torch.nn.Module:
    """Return a random causal LM of width 16 with two layers, scaled so that greedy texts vary."""
    torch.manual_seed(seed)
    shared = {
        "vocab_size": n_tokens,
        "hidden_size": 16,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    if family == "bloom":
        return BloomForCausalLM(BloomConfig(n_layer=2, n_head=2, **shared))
    layers |= {"intermediate_size": 32, "tie_word_embeddings": True, "max_position_embeddings": 512}
    if family == "lfm2":
        config = Lfm2Config(
            layer_types=["conv", "full_attention"],
            block_auto_adjust_ff_dim=False,
            **layers,
            **shared,
        )
        return Lfm2ForCausalLM(config)
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**layers, **shared))
    return LlamaForCausalLM(LlamaConfig(**layers, **shared))


def bent_model(family: str, n_tokens: int) -> torch.nn.Module:
    """Return a random causal LM of a special family.

    gemma2 (with an attention window), granite and cohere scale or cap their logits; falcon_h1 has
    state-space layers.
    """
    torch.manual_seed(0)
    shape = {
        "vocab_size": n_tokens,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family == "gemma2":
        config = Gemma2Config(head_dim=8, final_logit_softcapping=2.0, sliding_window=4, **shape)
        return Gemma2ForCausalLM(config)
    if family == "falcon_h1":  # attention and a state-space model in every layer
        state = {"mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 4}
        return FalconH1ForCausalLM(FalconH1Config(mamba_chunk_size=8, **state, **shape))
    if family == "granite":
        return GraniteForCausalLM(GraniteConfig(logits_scaling=3.0, **shape))
    return CohereForCausalLM(CohereConfig(logit_scale=0.3, **shape))


def write_tiny(
    folder: Path,
    family: str = "llama",
    tokenizer: str = "byte_level",
    template: str | None = CHATML,
) -> Path:
    """Write a tiny model and its tokenizer into `folder`."""
    tok = tiny_tokenizer(tokenizer, template)
    tiny_model(family, len(tok)).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def write_babbler(folder: Path, line: str) -> Path:
    """Write a Llama that repeats `line` and a line break: each token determines the next one."""
    tok = tiny_tokenizer("byte_level")
    chain = tok(f"\n{line}\n", add_special_tokens=False)["input_ids"]
    if len(set(chain)) != len(chain) - 1:
        raise ValueError(f"{chain} has a token twice, so a token does not determine the next one")
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tok), hidden_size=len(tok), intermediate_size=4, num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1, head_dim=4, max_position_embeddings=512,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(tok)))
        model.lm_head.weight.zero_()
        for token, following in pairwise(chain):
            model.lm_head.weight[following, token] = 1.0
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder
