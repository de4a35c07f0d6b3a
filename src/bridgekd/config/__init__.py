"""The recipe: one YAML file, frozen, with every unknown key refused and a default wherever one is
good.

Sections say what a user wants. Each stage's module takes from them what that stage depends on.
"""

from bridgekd.config.fields import Amount, Dollars, Section, count_of, is_loopback
from bridgekd.config.prices import Price, published_price
from bridgekd.config.recipe import (
    Annotate,
    Assistant,
    Check,
    Confidence,
    Data,
    Evaluate,
    Fields,
    Lora,
    PilotOptions,
    Recipe,
    Role,
    RuntimeOptions,
    Select,
    Student,
    Train,
)
from bridgekd.config.server import AssistantServer, Backend
from bridgekd.config.teacher import OPENAI_URL, OWN_FIELDS, Budget, Teacher, TeacherPrompt

__all__ = [
    "OPENAI_URL",
    "OWN_FIELDS",
    "Amount",
    "Annotate",
    "Assistant",
    "AssistantServer",
    "Backend",
    "Budget",
    "Check",
    "Confidence",
    "Data",
    "Dollars",
    "Evaluate",
    "Fields",
    "Lora",
    "PilotOptions",
    "Price",
    "Recipe",
    "Role",
    "RuntimeOptions",
    "Section",
    "Select",
    "Student",
    "Teacher",
    "TeacherPrompt",
    "Train",
    "count_of",
    "is_loopback",
    "published_price",
]
