"""The job with the openai package alone: a semaphore, gather and the package's own retries.

Kinder than what is mostly written: each answer is appended to a file as it comes and is not asked
again after a restart, and there are 10 retries, not the package's 2, which lose questions under
any rate limit. The package honours Retry-After and backs off by itself.
"""

import asyncio
import json
from pathlib import Path

from openai import AsyncOpenAI, OpenAIError
from request_job import MODEL, Job, from_arguments

MAX_RETRIES = 10


async def ask_all(job: Job) -> None:
    kept = Path(job.folder) / "answers.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    known = {json.loads(line)["question"] for line in lines}
    room = asyncio.Semaphore(job.concurrency)
    client = AsyncOpenAI(base_url=job.base_url, api_key="none", max_retries=MAX_RETRIES)

    async def ask(number: int, prompt: str) -> None:
        async with room:
            try:
                answer = await client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": prompt}],
                    max_tokens=job.max_tokens,
                    temperature=0,
                )
            except OpenAIError:
                return
        known.add(number)
        text = answer.choices[0].message.content
        print(json.dumps({"question": number, "text": text}), file=file, flush=True)

    job.begins()
    with kept.open("a") as file:
        tasks = (ask(i, prompt) for i, prompt in enumerate(job.prompts) if i not in known)
        await asyncio.gather(*tasks)
    job.done(list(known))


if __name__ == "__main__":
    asyncio.run(ask_all(from_arguments()))
