"""Local models: the only package that imports torch, transformers and peft.

load -> encode -> {finetune, generate, score}; `losses` and `batches` are pure tensor functions.
"""

import os

# OpenMP threads that spin while they wait make a tiny model 50 times slower as soon as another process
# wants a core (measured on two cores); sleeping threads cost nothing measurable. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
