"""The job with bespokelabs-curator, as its documentation sets it up for a known rate limit.

It is told the teacher's advertised rate (`max_requests_per_minute`), which bridgekd is not, and
the concurrency. Its cap on tokens is out of the way: it would take an unknown model's answers as
4,096 tokens each. What it can do about a rate that falls is its own matter.
"""

import importlib.util
import os
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ["TELEMETRY_ENABLED"] = "false"
# The tokenizer that it would download: litellm brings it along.
found = importlib.util.find_spec("litellm")
shipped = Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(shipped))

from bespokelabs import curator  # noqa: E402
from datasets import Dataset  # noqa: E402
from request_job import MODEL, from_arguments  # noqa: E402

NO_LIMIT = 100_000_000


class Asking(curator.LLM):
    def prompt(self, row):
        return row["prompt"]

    def parse(self, row, response):
        return {"question": row["question"], "text": response}


def main() -> None:
    job = from_arguments()
    rows = [{"question": i, "prompt": prompt} for i, prompt in enumerate(job.prompts)]
    asking = Asking(
        model_name=MODEL,
        backend="openai",
        generation_params={"max_tokens": job.max_tokens, "temperature": 0},
        backend_params={
            "base_url": job.base_url,
            "api_key": "none",
            "max_concurrent_requests": job.concurrency,
            "max_requests_per_minute": round(60 * job.rate) if job.rate else NO_LIMIT,
            "max_tokens_per_minute": NO_LIMIT,
            "require_all_responses": False,
        },
    )
    job.begins()
    answered = asking(Dataset.from_list(rows), working_dir=job.folder)
    job.done(list(answered.dataset["question"]))


if __name__ == "__main__":
    main()
