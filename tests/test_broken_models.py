"""A broken or hostile model folder is one sentence, and none of its code runs."""

import io
import json
import os
import pickle
import shutil

import pytest
import torch

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.records import Message
from tiny_models import write_tiny

PROMPTS = [(Message("system", "Be brief."), Message("user", "Who holds the box ?"))]


class Payload:
    """What a pickle file runs when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "original")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def use(folder):
    local = lm.load_model(folder, device="cpu")
    lm.load_remote_tokenizer(folder)
    return lm.generate_texts(local, PROMPTS, max_new_tokens=1, batch_size=1)


@pytest.mark.parametrize("kind", ["config", "tokenizer"])
def test_code_of_a_model_never_runs_whatever_stdin_says(folder, tmp_path, monkeypatch, kind):
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(
        f"import os\nos.mkdir({str(ran)!r})\nclass A: pass\nclass B: pass\n"
    )
    if kind == "config":
        names = {"AutoConfig": "own.A", "AutoModelForCausalLM": "own.B"}
        change(folder / "config.json", auto_map=names, model_type="of_their_own")
    else:
        names = {"AutoTokenizer": ["own.A", "own.B"]}
        change(folder / "tokenizer_config.json", auto_map=names, tokenizer_class="OfTheirOwn")
    answers = io.StringIO("y\n" * 9)
    monkeypatch.setattr("sys.stdin", answers)
    with pytest.raises(InputError, match=rf"Model {folder} cannot be loaded \(.*custom code"):
        use(folder)
    assert not ran.exists() and answers.tell() == 0


@pytest.mark.parametrize("write", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x, 2))])
def test_pickle_file_with_code_is_refused(folder, tmp_path, write):
    ran = tmp_path / "ran"
    (folder / "model.safetensors").unlink()
    write({"a": Payload(ran)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"loading it could run code\)\. Save it as safetensors\."):
        use(folder)
    assert not ran.exists()


BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}
BROKEN = [
    ("config.json", {"num_attention_heads": 0}),
    ("config.json", {"hidden_size": "x"}),
    ("config.json", {"hidden_size": -4}),
    ("tokenizer.json", {"model": {"type": "own"}}),
    ("tokenizer.json", {"model": BPE}),
    ("tokenizer_config.json", {"eos_token": 5}),
    ("tokenizer_config.json", {"added_tokens_decoder": {"x": 1}}),
    ("generation_config.json", {"eos_token_id": "end"}),
    ("generation_config.json", {"eos_token_id": [[2]]}),
]


@pytest.mark.parametrize(("file", "values"), BROKEN)
def test_broken_file_of_a_model_is_one_sentence(folder, file, values):
    change(folder / file, **values)
    with pytest.raises(InputError) as caught:
        use(folder)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and len(message) < 500


@pytest.mark.parametrize("config", [[], {"peft_type": "OWN"}, {"peft_type": "LORA", "r": "x"}])
def test_broken_adapter_is_one_sentence(original, folder, config):
    if isinstance(config, dict):
        config = config | {"base_model_name_or_path": str(original)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="adapter") as caught:
        use(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{% for i in range(10 ** 9) %}{% endfor %}", "rejects the prompt: Range too big"),
        ("{{ 1 / 0 }}", "rejects the prompt: division by zero"),
        ("{{ messages[0]['content'] + 1 }}", "rejects the prompt: can only concatenate"),
        ("{{ messages[9]['x']['y'] }}", "rejects the prompt: list object has no element 9"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "rejects the prompt: maximum recurs"),
        ("{% if %}", "rejects the prompt: Expected an expression"),
        ("{{ '' }}", "The chat template writes nothing"),
    ],
)
def test_template_that_fails_is_one_sentence(folder, template, cause):
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match=cause) as caught:
        use(folder)
    assert "\n" not in str(caught.value)
