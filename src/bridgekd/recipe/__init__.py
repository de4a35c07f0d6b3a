"""The recipe: one YAML file, frozen, with every unknown key refused and a default wherever one is
good.

Sections say what a user wants. Each stage's module takes from them what that stage depends on.
"""

from bridgekd.recipe.assistant_server import AssistantServerOptions, BackendName
from bridgekd.recipe.field_types import (
    CountOrPercent,
    Dollars,
    FrozenModel,
    is_loopback,
    resolve_count,
)
from bridgekd.recipe.options import (
    AnnotateOptions,
    AssistantOptions,
    CheckOptions,
    ColumnNames,
    ConfidenceOptions,
    DataOptions,
    EvaluateOptions,
    LoraOptions,
    PilotOptions,
    Recipe,
    Role,
    RuntimeOptions,
    SelectOptions,
    StudentOptions,
    TrainOptions,
)
from bridgekd.recipe.prices import Price, find_published_price
from bridgekd.recipe.teacher import (
    OPENAI_URL,
    RESERVED_FIELDS,
    BudgetOptions,
    TeacherOptions,
    TeacherPromptOptions,
)

__all__ = [
    "OPENAI_URL",
    "RESERVED_FIELDS",
    "AnnotateOptions",
    "AssistantOptions",
    "AssistantServerOptions",
    "BackendName",
    "BudgetOptions",
    "CheckOptions",
    "ColumnNames",
    "ConfidenceOptions",
    "CountOrPercent",
    "DataOptions",
    "Dollars",
    "EvaluateOptions",
    "FrozenModel",
    "LoraOptions",
    "PilotOptions",
    "Price",
    "Recipe",
    "Role",
    "RuntimeOptions",
    "SelectOptions",
    "StudentOptions",
    "TeacherOptions",
    "TeacherPromptOptions",
    "TrainOptions",
    "find_published_price",
    "is_loopback",
    "resolve_count",
]
