"""A variant is one file: found in its package or named by a recipe, hashed with its code."""

import pytest

from bridgekd.errors import InputError
from bridgekd.variants import NoOptions, Registry, VariantRef

SHAPE = """
from dataclasses import dataclass
from pydantic import BaseModel, ConfigDict, Field
from test_variants import Shape

class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    n_sides: int = Field(3, ge=3)

SHAPE = Shape(name="polygon", options=Options)
"""


class Shape:
    title, summary, paper = "Shape", "A shape.", ""

    def __init__(self, name, options=NoOptions):
        self.name, self.options = name, options


@pytest.fixture
def registry(tmp_path, monkeypatch):
    package = tmp_path / "shapes_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "polygon.py").write_text(SHAPE)
    (package / "no_variant.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "test_variants", __import__(__name__))
    return Registry("shape", "shapes_package", "SHAPE", Shape)


def test_modules_with_constant_are_found(registry):
    assert registry.list_names() == ["polygon"]


def test_name_alone_has_default_options(registry):
    assert registry.resolve(VariantRef.model_validate("polygon")).options == {"n_sides": 3}


def test_options_are_kept_in_dump(registry):
    ref = VariantRef.model_validate({"name": "polygon", "n_sides": 5})
    assert VariantRef.model_validate(ref.model_dump(mode="json")) == ref
    assert registry.parse_options(registry.resolve(ref)).n_sides == 5


def test_package_code_is_not_hashed(registry):
    assert registry.resolve(VariantRef(name="polygon")).content is None


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("polygn", "Unknown shape 'polygn'. Did you mean 'polygon'?"),
        ({"name": "polygon", "n_side": 4}, "unknown option 'n_side'. Did you mean 'n_sides'?"),
        ({"name": "polygon", "n_sides": 2}, "option 'n_sides': .*greater than or equal to 3"),
        ({"file": "nothing.py"}, "Cannot read the shape file .*nothing.py: No such file"),
    ],
)
def test_wrong_reference_is_refused(registry, tmp_path, ref, message):
    with pytest.raises(InputError, match=message):
        registry.resolve(VariantRef.model_validate(ref), tmp_path)


def test_code_of_file_is_hashed(registry, tmp_path):
    (tmp_path / "mine.py").write_text(SHAPE.replace('"polygon"', '"mine"'))
    first = registry.resolve(VariantRef(file="mine.py"), tmp_path)
    assert registry.load(first).name == "mine"
    (tmp_path / "mine.py").write_text(SHAPE.replace('"polygon"', '"mine"') + "# changed\n")
    assert registry.resolve(VariantRef(file="mine.py"), tmp_path).content != first.content


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("SHAPE = 3\n", "is not a Shape. A shape file ends in SHAPE = Shape"),
        ("x = 1\n", "is not a Shape"),
        ("import nothing_there\n", "cannot be imported: ModuleNotFoundError"),
        ("def (\n", "cannot be imported: SyntaxError"),
    ],
)
def test_broken_file_is_refused(registry, tmp_path, code, message):
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(InputError, match=message):
        registry.resolve(VariantRef(file="broken.py"), tmp_path)


@pytest.mark.parametrize("value", [3, {}, {"name": "a", "file": "b"}, {"name": 3}])
def test_reference_has_one_of_name_and_file(value):
    with pytest.raises(ValueError, match="expected"):
        VariantRef.model_validate(value)
