"""A chat template that renders the prompts of the training without any settings.

Training passes settings with the messages (no thinking, a fixed date) and closes a `<think>` block
that the template opens. A user of an exported model passes none of that, so the exported template
does the same by itself.
"""

from collections.abc import Iterator

import jinja2
from transformers import PreTrainedTokenizerBase

from bridgekd.lm.tokenization import freeze_date, render_prompt
from bridgekd.records import Message

_PROBE = (Message("user", "What is asked here?"),)
_NO_THINKING = "{%- set enable_thinking = false %}\n"
_SUFFIX = "{{% if add_generation_prompt %}}{{{{ {text!r} }}}}{{% endif %}}"
_CLOSING_TEXTS = ("\n</think>\n\n", "</think>\n\n")


def make_self_contained(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the template with the smallest change that makes it render what training renders.

    A plain `apply_chat_template` then gives the text of `render_prompt`. None if no change helps.
    """
    expected = render_prompt(tokenizer, _PROBE)
    candidates = _iter_candidates(tokenizer.get_chat_template())
    return next((t for t in candidates if _render_with(tokenizer, t) == expected), None)


def _iter_candidates(template: str) -> Iterator[str]:
    """Yield templates from no change to all changes."""
    yield template
    yield freeze_date(template)
    changed = _NO_THINKING + freeze_date(template).removesuffix("\n")
    yield changed
    for text in _CLOSING_TEXTS:
        yield changed + _SUFFIX.format(text=text)


def _render_with(tokenizer: PreTrainedTokenizerBase, template: str) -> str | None:
    messages = [{"role": m.role, "content": m.content} for m in _PROBE]
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )
    except jinja2.TemplateError:
        return None
