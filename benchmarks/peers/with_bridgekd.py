"""The job with bridgekd: nothing is told about rates, the ledger is on disk."""

from pathlib import Path

from request_job import MODEL, from_arguments

from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.cost.budget import Limits
from bridgekd.ledger.ledger import Ledger
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.records import Message
from bridgekd.teacher.buy_answers import buy_answers


def main() -> None:
    job = from_arguments()
    teacher = TeacherOptions(
        model=MODEL,
        base_url=job.base_url,
        api_key_env=None,
        max_tokens=job.max_tokens,
        max_concurrent_requests=job.concurrency,
        price=Price(input=2.5, output=10.0),
    )
    requests = [
        TeacherRequest(str(i), i, (Message("user", prompt),))
        for i, prompt in enumerate(job.prompts)
    ]
    job.begins()
    with Ledger(Path(job.folder) / "ledger.db") as ledger:
        purchase = buy_answers(
            requests, ledger, teacher=teacher, limits=Limits(queries=job.n), run="r", api_key="none"
        )
    job.done([row.rank for row in purchase.completions])


if __name__ == "__main__":
    main()
