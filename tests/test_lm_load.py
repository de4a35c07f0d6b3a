"""Models are loaded and saved; errors name the folder, id or device."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm.load import has_fast_bfloat16
from bridgekd.recipe import LoraOptions
from bridgekd.records import Message
from tiny_models import FAMILIES, write_tiny

PROMPTS = [(Message("user", "Who holds the box ?"),)]


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_model_equals_model(tmp_path, family):
    local = lm.load_model(write_tiny(tmp_path / "a", family), device="cpu")
    lm.save_model(local, tmp_path / "b")
    again = lm.load_model(tmp_path / "b", device="cpu")
    for name, weights in local.model.state_dict().items():
        assert torch.equal(weights, again.model.state_dict()[name])
    assert again.tokenizer.chat_template == local.tokenizer.chat_template
    texts = [lm.generate_texts(m, PROMPTS, max_new_tokens=8, batch_size=1) for m in (local, again)]
    assert texts[0] == texts[1]


def test_half_precision_weights_are_float32_on_cpu(tmp_path):
    folder = write_tiny(tmp_path)
    local = lm.load_model(folder, device="cpu")
    local.model.to(torch.bfloat16).save_pretrained(folder)
    assert lm.load_model(folder, device="cpu").model.dtype == torch.float32


def test_precision_bfloat16_keeps_trained_weights_in_float32(tmp_path):
    folder = write_tiny(tmp_path)

    def get_dtypes(**options):
        local = lm.load_model(folder, device="cpu", precision="bfloat16", **options)
        return {p.requires_grad: p.dtype for p in local.model.parameters()}

    assert set(get_dtypes().values()) == {torch.bfloat16}
    assert get_dtypes(trainable=True) == {True: torch.float32}
    lora = get_dtypes(trainable=True, lora=LoraOptions())
    assert lora == {True: torch.float32, False: torch.bfloat16}


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_frozen_weights_beside_an_adapter_are_as_narrow_as_the_cpu_is_fast(tmp_path, stored):
    folder = write_tiny(tmp_path)
    local = lm.load_model(folder, device="cpu")
    local.model.to(stored).save_pretrained(folder)
    trained = lm.load_model(folder, device="cpu", trainable=True, lora=LoraOptions()).model
    frozen = stored if has_fast_bfloat16() else torch.float32
    assert {p.requires_grad: p.dtype for p in trained.parameters()} == {
        True: torch.float32,
        False: frozen,
    }
    assert lm.load_model(folder, device="cpu", trainable=True).model.dtype == torch.float32


@pytest.mark.parametrize("model", ["no/such/folder", "./nothing", "/nothing/here"])
def test_missing_folder_is_named(model):
    with pytest.raises(InputError, match=f"Model folder {model} does not exist. Use"):
        lm.load_model(model, device="cpu")


def test_folder_without_model_is_named(tmp_path):
    with pytest.raises(InputError, match="has no model: it has neither"):
        lm.load_model(tmp_path, device="cpu")


def test_folder_without_readable_weights_is_named(tmp_path):
    folder = write_tiny(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=rf"Model {folder} cannot be loaded \("):
        lm.load_model(folder, device="cpu")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=rf"Model {folder} cannot be loaded \("):
        lm.load_model(folder, device="cpu")


def test_encoder_is_no_causal_model(tmp_path):
    folder = write_tiny(tmp_path / "a")
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(InputError, match="cannot be loaded"):
        lm.load_model(folder, device="cpu")


def test_unknown_device_is_named():
    with pytest.raises(InputError, match="Device 'tpu' is not available"):
        lm.resolve_device("tpu")
    with pytest.raises(InputError, match="Device 'cpu:1'"):
        lm.resolve_device("cpu:1")
    assert lm.resolve_device("cpu") == "cpu"
    assert lm.resolve_device("auto") in ("cpu", "cuda", "mps")


def test_missing_template_is_reported_once_per_model(tmp_path, caplog):
    folder = write_tiny(tmp_path, template=None)
    for _ in range(2):
        lm.load_remote_tokenizer(folder)
    (record,) = caplog.records
    assert f"{folder} has no chat template. Its prompt is plain text" in record.getMessage()


def test_tokenizer_without_padding_or_template_gets_both(tmp_path):
    folder = write_tiny(tmp_path, template=None)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    local = lm.load_model(folder, device="cpu")
    assert local.tokenizer.pad_token == "<pad>"
    assert len(local.tokenizer) == local.model.get_input_embeddings().weight.shape[0]
    messages = [{"role": "user", "content": "hi"}]
    text = local.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "hi\n"


def test_tokenizer_of_folder_is_used(tmp_path):
    """AutoTokenizer would use the splitting rule of the Qwen2 family instead."""
    local = lm.load_model(write_tiny(tmp_path, "qwen2", "word_level"), device="cpu")
    assert len(local.tokenizer("Ann holds")["input_ids"]) == 2


def test_adapter_names_its_base_and_continues(tmp_path):
    base = write_tiny(tmp_path / "base")
    first = lm.load_model(base, device="cpu", trainable=True, lora=LoraOptions(r=2))
    with torch.no_grad():
        for name, weight in first.model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    lm.save_model(first, tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)
    assert all("lora" in name for name in load_file(tmp_path / "adapter/adapter_model.safetensors"))
    fixed = lm.load_model(tmp_path / "adapter", device="cpu")
    trainable = lm.load_model(tmp_path / "adapter", device="cpu", trainable=True)
    assert not any(p.requires_grad for p in fixed.model.parameters())
    assert any(p.requires_grad for p in trainable.model.parameters())
    first.model.eval()
    ids = torch.tensor([[5, 6, 7]])
    expected = first.model(input_ids=ids).logits  # fixed has the adapter merged into its weights
    torch.testing.assert_close(fixed.model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_adapter_without_base_is_named(tmp_path):
    base = write_tiny(tmp_path / "base")
    lm.save_model(
        lm.load_model(base, device="cpu", trainable=True, lora=LoraOptions(r=2)),
        tmp_path / "adapter",
    )
    base.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=rf"Model folder {base} .the base of .* does not exist"):
        lm.load_model(tmp_path / "adapter", device="cpu")


@pytest.mark.parametrize("text", ["[]", "broken", '{"peft_type": "LORA"}'])
def test_unreadable_adapter_config_is_named(tmp_path, text):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match=r"adapter_config\.json .*Save the adapter again"):
        lm.load_model(tmp_path, device="cpu")


def test_lora_on_missing_modules_raises_error(tmp_path):
    lora = LoraOptions(target_modules=("no_such",))
    with pytest.raises(InputError, match="LoRA does not fit"):
        lm.load_model(write_tiny(tmp_path), device="cpu", trainable=True, lora=lora)


def test_importing_package_does_not_import_torch():
    code = "import sys; from bridgekd import lm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
