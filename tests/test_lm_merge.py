"""Merging: the folder gives the texts of the adapter, in float32."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bridgekd import lm
from bridgekd.recipe import LoraOptions
from bridgekd.records import Message
from tiny_models import FAMILIES, write_tiny

PROMPTS = [(Message("user", "Who holds " + "the red box " * k + "?"),) for k in (1, 3)]


def write_adapter(folder, base, targets="all-linear"):
    """Write an adapter with large random weights."""
    local = lm.load_model(
        base, device="cpu", trainable=True, lora=LoraOptions(r=2, target_modules=targets)
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in local.model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    lm.save_model(local, folder)
    return folder


def merged(model, out):
    return lm.merge_adapter(model, out, max_new_tokens=8, prompts=PROMPTS)


def plain_texts(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    texts = []
    for prompt in PROMPTS:
        inputs = tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in prompt],
            add_generation_prompt=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
        new = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        texts.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return texts


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_adapter_generates_texts_of_adapter(tmp_path, family):
    base = write_tiny(tmp_path / "base", family)
    adapter = write_adapter(tmp_path / "adapter", base)
    texts = {
        m: lm.generate_texts(
            lm.load_model(m, device="cpu"), PROMPTS, max_new_tokens=8, batch_size=2
        )
        for m in (base, adapter)
    }
    assert texts[adapter] != texts[base]
    assert merged(adapter, tmp_path / "out").notes == ()
    assert plain_texts(tmp_path / "out") == texts[adapter]
    assert not (tmp_path / "out" / "adapter_config.json").exists()


@pytest.mark.filterwarnings("ignore:.*(tie_word_embeddings|save_embedding_layers).*")
def test_adapter_on_tied_head_leaves_embeddings_unchanged(tmp_path):
    base = write_tiny(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", base, ("lm_head",))
    expected = lm.load_model(adapter, device="cpu")
    merged(adapter, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.allclose(
        loaded(input_ids=ids).logits, expected.model(input_ids=ids).logits, atol=1e-4
    )


def test_merged_weights_are_not_rounded_to_the_dtype_of_the_base(tmp_path):
    base = write_tiny(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(base).to(torch.bfloat16).save_pretrained(base)
    adapter = write_adapter(tmp_path / "adapter", base)
    assert merged(adapter, tmp_path / "out").dtype == "float32"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    whole = lm.load_model(adapter, device="cpu").model
    assert loaded.dtype == torch.float32
    for name, weight in whole.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_sampling_settings_of_base_are_removed(tmp_path):
    base = write_tiny(tmp_path / "base")
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.1}
    (base / "generation_config.json").write_text(json.dumps(sampling | {"eos_token_id": 9}))
    merged(base, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    del config["transformers_version"]
    assert config == {
        "bos_token_id": 1, "eos_token_id": [2, 4, 9], "pad_token_id": 0, "do_sample": False,
        "max_new_tokens": 8,
    }  # fmt: skip


def test_tokenizer_that_auto_tokenizer_loads_differently_gets_warning(tmp_path):
    """AutoTokenizer uses the splitting rule of the Qwen2 family instead."""
    base = write_tiny(tmp_path / "base", "qwen2", "word_level")
    (note,) = merged(base, tmp_path / "out").notes
    assert "other prompt tokens than the training used" in note
