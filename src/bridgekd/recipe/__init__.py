"""The recipe: one YAML file as frozen models that reject unknown keys.

A part of the recipe states what a user wants. Each stage takes from it what the stage depends on.
"""

from bridgekd.recipe.field_types import (
    CountOrPercent,
    Dollars,
    FrozenModel,
    SparseModel,
    TokenLimit,
    is_loopback,
    resolve_count,
)
from bridgekd.recipe.local_models import (
    AssistantOptions,
    AssistantServerOptions,
    BackendName,
    ChunkOptions,
    LoraOptions,
    Precision,
    Role,
    RuntimeOptions,
    StudentOptions,
    TrainOptions,
)
from bridgekd.recipe.options import (
    AnnotateOptions,
    CheckOptions,
    ColumnNames,
    ConfidenceOptions,
    DataOptions,
    EvaluateOptions,
    PilotOptions,
    Recipe,
    SelectOptions,
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
    "ChunkOptions",
    "ColumnNames",
    "ConfidenceOptions",
    "CountOrPercent",
    "DataOptions",
    "Dollars",
    "EvaluateOptions",
    "FrozenModel",
    "LoraOptions",
    "PilotOptions",
    "Precision",
    "Price",
    "Recipe",
    "Role",
    "RuntimeOptions",
    "SelectOptions",
    "SparseModel",
    "StudentOptions",
    "TeacherOptions",
    "TeacherPromptOptions",
    "TokenLimit",
    "TrainOptions",
    "find_published_price",
    "is_loopback",
    "resolve_count",
]
