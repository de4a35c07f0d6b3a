"""No method at all: what the models can do before anything is bought or trained."""

from bridgekd.runs import Arms, Run


def base(run: Run) -> Arms:
    """Both models untouched."""
    return run.untouched()
