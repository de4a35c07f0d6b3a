"""A chat template that by itself renders the prompts of the training.

Training passes settings beside the messages (thinking is off, the date stands still) and closes a
thought that a template opens. Whoever loads an exported model passes none of that, so what the
settings do is written into its template.
"""

import re
from collections.abc import Iterator

import jinja2
from transformers import PreTrainedTokenizerBase

from bridgekd.lm.encode import TODAY, render_prompt
from bridgekd.records import Message

_PROBE = (Message("user", "What is asked here?"),)
_DATE = re.compile(r"""strftime_now\(\s*["'](.+?)["']\s*\)""")
_NO_THINKING = "{%- set enable_thinking = false %}\n"
_CLOSED = "{{% if add_generation_prompt %}}{{{{ {text!r} }}}}{{% endif %}}"
_CLOSINGS = ("\n</think>\n\n", "</think>\n\n")


def self_contained(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template, changed only where a plain `apply_chat_template` would otherwise render another
    prompt than `render_prompt`; None where no change helps.
    """
    expected = render_prompt(tokenizer, _PROBE)
    return next(
        (t for t in _candidates(_of_chat(tokenizer)) if _rendered(tokenizer, t) == expected), None
    )


def _candidates(template: str) -> Iterator[str]:
    """From the template as it is to the one with every change."""
    yield template
    set_up = _dated(template) + _NO_THINKING + template.removesuffix("\n")
    yield set_up
    for text in _CLOSINGS:
        yield set_up + _CLOSED.format(text=text)


def _dated(template: str) -> str:
    """The date of the training in every format that the template asks for."""
    shown = {format: TODAY.strftime(format) for format in _DATE.findall(template)}
    if not shown:
        return ""
    return f"{{%- macro strftime_now(format) %}}{{{{ {shown!r}[format] }}}}{{% endmacro %}}\n"


def _of_chat(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of several templates (Command R has one for tools) the one for chat."""
    template = tokenizer.chat_template
    return template["default"] if isinstance(template, dict) else str(template)


def _rendered(tokenizer: PreTrainedTokenizerBase, template: str) -> str | None:
    messages = [{"role": m.role, "content": m.content} for m in _PROBE]
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )
    except jinja2.TemplateError:
        return None
