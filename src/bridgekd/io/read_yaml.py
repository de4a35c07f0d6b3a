"""Read YAML 1.2 as plain values with the line of every key. The work and the result are bounded.

The values are those of YAML's core schema, which are those of JSON: a date is a text. What JSON
cannot write is refused: other tags, infinity, NaN, and half of a surrogate pair.
"""

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)
from ruamel.yaml.reader import ReaderError

from bridgekd.errors import InputError
from bridgekd.messages import format_text, format_value

KeyPath = tuple[str | int, ...]
MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000  # with the values that aliases repeat
MAX_DIGITS = 100
_CORE_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null")}
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_INTEGER = re.compile(r"[-+]?(?:0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?)"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_WORDS = {"": None, "~": None} | {
    spelling: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for spelling in (word, word.capitalize(), word.upper())
}


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A YAML document: dicts, lists, texts, numbers, truth values and None.

    lines: the line of every key by its path. What an alias repeats has the line of the alias.
    """

    value: JsonValue
    lines: dict[KeyPath, int]


def read_yaml(text: str, where: str) -> YamlDocument:
    """Return the one document in `text`; its value is None if there is none.

    Raises InputError, with `where` and the line, for broken YAML and for a document that is too
    large, nested too deeply, or has what JSON cannot write.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{where}: More than {MAX_CHARACTERS:,} characters. Put data into a file of its own."
        )
    builder = _Builder(where)
    try:
        value = builder.build(YAML(typ="safe", pure=True).parse(text))
    except InputError:
        raise
    except MarkedYAMLError as exc:
        if exc.problem_mark is not None:
            builder.line = exc.problem_mark.line + 1
        raise builder.make_error(f"Broken YAML: {format_text(str(exc.problem))}. Fix it.") from exc
    except ReaderError as exc:
        builder.line = text.count("\n", 0, exc.position) + 1
        raise builder.make_error(
            f"The character U+{exc.character:04X} is not allowed here. Remove it."
        ) from exc
    except Exception as exc:  # the parser meets escapes and directives that it does not expect
        raise builder.make_error(f"Broken YAML: {format_text(str(exc))}. Fix it.") from exc
    return YamlDocument(value, builder.lines)


@dataclass(slots=True)
class _Anchored:
    """The value of an anchor and the number of values in it; 0 while it is still being read."""

    value: JsonValue = None
    n_values: int = 0


@dataclass(slots=True)
class _Builder:
    """Builds a document from the events of the parser, and stops at the first one out of bounds."""

    where: str
    line: int = 0
    lines: dict[KeyPath, int] = field(default_factory=dict)
    n_values: int = 0
    anchors: dict[str, _Anchored] = field(default_factory=dict)

    def build(self, events: Iterator[Any]) -> JsonValue:
        value: JsonValue = None
        n_documents = 0
        for event in events:
            self.line = event.start_mark.line + 1
            if isinstance(event, DocumentStartEvent):
                n_documents += 1
                if n_documents > 1:
                    raise self.make_error("A second document starts. Write one per file.")
                value = self._build_value(next(events), events, ())
        return value

    def make_error(self, problem: str) -> InputError:
        return InputError(f"{self.where}{f' line {self.line}' if self.line else ''}: {problem}")

    def _build_value(self, event: NodeEvent, events: Iterator[Any], path: KeyPath) -> JsonValue:
        self.line = event.start_mark.line + 1
        self._count(1)
        if len(path) > MAX_DEPTH:
            raise self.make_error(f"More than {MAX_DEPTH} levels of nesting.")
        if isinstance(event, AliasEvent):
            return self._repeat(event.anchor)
        anchored, n_before = _Anchored(), self.n_values - 1
        if event.anchor is not None:
            self.anchors[event.anchor] = anchored
        if isinstance(event, ScalarEvent):
            anchored.value = self._parse_scalar(event)
        else:
            assert isinstance(event, CollectionStartEvent)
            if event.tag not in (None, "!", *_COLLECTION_TAGS):
                raise self._make_tag_error(event)
            if isinstance(event, MappingStartEvent):
                anchored.value = self._build_mapping(events, path)
            else:
                anchored.value = self._build_list(events, path)
        anchored.n_values = self.n_values - n_before
        return anchored.value

    def _count(self, n: int) -> None:
        self.n_values += n
        if self.n_values > MAX_VALUES:
            raise self.make_error(
                f"More than {MAX_VALUES:,} values, counting those that aliases repeat. Put data "
                "into a file of its own."
            )

    def _repeat(self, name: str | None) -> JsonValue:
        anchored, alias = self.anchors.get(str(name)), f"The alias *{format_text(str(name))}"
        if anchored is None:
            raise self.make_error(f"{alias} has no anchor before it.")
        if not anchored.n_values:
            raise self.make_error(f"{alias} is a part of its own anchor.")
        self._count(anchored.n_values)
        return copy.deepcopy(anchored.value)  # an override changes one of them only

    def _build_list(self, events: Iterator[Any], path: KeyPath) -> list[JsonValue]:
        values: list[JsonValue] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            values.append(self._build_value(event, events, (*path, len(values))))
        return values

    def _build_mapping(self, events: Iterator[Any], path: KeyPath) -> dict[str, JsonValue]:
        values: dict[str, JsonValue] = {}
        merged: list[dict[str, JsonValue]] = []
        while not isinstance(event := next(events), MappingEndEvent):
            self.line = event.start_mark.line + 1
            if not isinstance(event, ScalarEvent):
                raise self.make_error("A key is not a text. Quote it, or write 'key: value'.")
            key = self._check_text(event.value)
            is_merge = key == "<<" and event.implicit[0]
            if key in values or (is_merge and merged):
                raise self.make_error(f"The key {format_value(key)} is here twice. Remove one.")
            if is_merge:
                merged = self._build_merged(events, path)
            else:
                self.lines[*path, key] = self.line
                values[key] = self._build_value(next(events), events, (*path, key))
        return {k: v for source in reversed(merged) for k, v in source.items()} | values

    def _build_merged(self, events: Iterator[Any], path: KeyPath) -> list[dict[str, JsonValue]]:
        """Return the mappings of a merge key. Of a key that several have, the first counts."""
        value = self._build_value(next(events), events, (*path, "<<"))
        values = value if isinstance(value, list) else [value]
        sources = [source for source in values if isinstance(source, dict)]
        if not sources or len(sources) < len(values):
            raise self.make_error("The key << needs the alias of a mapping, such as *name.")
        return sources

    def _make_tag_error(self, event: ScalarEvent | CollectionStartEvent) -> InputError:
        return self.make_error(f"The tag {format_text(str(event.tag))} has no meaning. Remove it.")

    def _parse_scalar(self, event: ScalarEvent) -> JsonValue:
        text = self._check_text(event.value)
        if event.tag in (None, "!"):
            is_plain = event.tag is None and event.implicit[0]
            return self._resolve(text) if is_plain else text
        if event.tag not in _CORE_TAGS:
            raise self._make_tag_error(event)
        name = _CORE_TAGS[event.tag]
        if name == "str":
            return text
        value = self._resolve(text)
        if name == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if name != ("null" if value is None else type(value).__name__):
            raise self.make_error(f"{format_value(text)} is not of the type {name}.")
        return value

    def _resolve(self, text: str) -> JsonValue:
        """Return what a plain scalar is in the core schema: null, a truth value, number or text."""
        if text in _WORDS:
            return _WORDS[text]
        is_integer = _INTEGER.fullmatch(text)
        if not is_integer and not _FLOAT.fullmatch(text):
            return text
        if len(text) > MAX_DIGITS:
            raise self.make_error(
                f"A number has {len(text):,} digits. The maximum is {MAX_DIGITS}."
            )
        digits = text.replace("_", "").lower()
        if is_integer:
            base = {"0x": 16, "0o": 8, "0b": 2}.get(digits.lstrip("+-")[:2], 10)
            return int(digits, base)
        value = float(digits.replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(value):
            raise self.make_error(f"{text} is not a finite number. Quote it if it is a text.")
        return value

    def _check_text(self, text: str) -> str:
        """Return a text with its pairs of surrogates joined, as in JSON."""
        if "\0" in text:
            raise self.make_error(f"{format_value(text)} has a NUL character. Remove it.")
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as exc:
            raise self.make_error(
                f"{format_value(text)} has half of a surrogate pair (\\ud800 to \\udfff), which is "
                "no character. Remove it."
            ) from exc
