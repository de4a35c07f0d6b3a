"""The answer types of the package by their names, for tests."""

from bridgekd.grading.answer_type import load_answer_type
from bridgekd.variants import VariantSettings


def get_type(name):
    return load_answer_type(VariantSettings(name=name))
