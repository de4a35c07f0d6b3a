"""A chat template that by itself renders the prompts of the training.

Training passes settings beside the messages (thinking is off, the date stands still) and closes a
thought that a template opens. Whoever loads an exported model passes none of that, so what the
settings do is written into its template.
"""

from collections.abc import Iterator

import jinja2
from transformers import PreTrainedTokenizerBase

from bridgekd.lm.tokenization import freeze_date, render_prompt
from bridgekd.records import Message

_PROBE = (Message("user", "What is asked here?"),)
_NO_THINKING = "{%- set enable_thinking = false %}\n"
_CLOSED = "{{% if add_generation_prompt %}}{{{{ {text!r} }}}}{{% endif %}}"
_CLOSINGS = ("\n</think>\n\n", "</think>\n\n")


def make_self_contained(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template, changed only where a plain `apply_chat_template` would otherwise render another
    prompt than `render_prompt`; None where no change helps.
    """
    expected = render_prompt(tokenizer, _PROBE)
    known = _candidates(tokenizer.get_chat_template())
    return next((t for t in known if _render_with(tokenizer, t) == expected), None)


def _candidates(template: str) -> Iterator[str]:
    """From the template as it is to the one with every change."""
    yield template
    yield freeze_date(template)
    set_up = _NO_THINKING + freeze_date(template).removesuffix("\n")
    yield set_up
    for text in _CLOSINGS:
        yield set_up + _CLOSED.format(text=text)


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
