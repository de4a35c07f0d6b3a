"""Where the assistant answers when it does not run in this process."""

from typing import Literal

from pydantic import Field, model_validator

from bridgekd.recipe.field_types import BaseUrl, FrozenModel

BackendName = Literal["transformers", "server"]


class AssistantServerOptions(FrozenModel):
    """An OpenAI-compatible server for the assistant: one that `command` starts for each stage, or
    one at `base_url` that a person runs. Nothing here changes a result.

    In `command`, {model} stands for the folder (or Hub id) to serve, {port} for a free port of this
    machine, {name} for the name to serve it under.
    """

    command: str | None = None
    base_url: BaseUrl | None = None
    api_key_env: str | None = None  # the variable with the key, for a server that wants one
    max_concurrent_requests: int = Field(64, ge=1, le=1024)  # requests in flight
    timeout_s: float = Field(300.0, gt=0)  # for one answer
    startup_timeout_s: float = Field(900.0, gt=0)  # from the command to the first answer
    max_attempts: int = Field(5, ge=1, le=20)

    @model_validator(mode="after")
    def _check_command_or_url(self) -> "AssistantServerOptions":
        if (self.command is None) == (self.base_url is None):
            raise ValueError(
                "give either a command, such as 'vllm serve {model} --port {port}', or the "
                "base_url of a server that you run"
            )
        if self.command is not None:
            if "--api-key" in self.command:
                raise ValueError(
                    "the command holds a key; leave it to a variable that the server reads, such "
                    "as VLLM_API_KEY, and name that in api_key_env"
                )
            for part in ("{model}", "{port}"):
                if part not in self.command:
                    raise ValueError(
                        f"the command holds no {part}; write it where the server takes the "
                        f"{'model' if part == '{model}' else 'port'}"
                    )
        return self
