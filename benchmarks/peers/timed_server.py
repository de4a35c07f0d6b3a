"""The faulty teacher in a process of its own that notes when each call came and was answered.

Arguments: the settings as JSON. The first line it prints is its address; a line on stdin makes it
print its notes, [came, done, status, question] each in seconds of the machine's one monotonic
clock, and end.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from faulty_teacher import Faults, RateLimitSpec, run_teacher_server

TEXT = "First this, then that, so it must be so. Answer: 4"


def main() -> None:
    requested = json.loads(sys.argv[1])
    faults = Faults(latency_s=requested["latency_s"], latency_log_sd=requested["spread"])
    rate = None
    if requested["rate"]:
        steps = tuple((after_s, speed) for after_s, speed in requested["steps"])
        rate = RateLimitSpec(
            requested["rate"],
            burst_s=requested["burst_s"],
            steps=steps,
            whole_seconds=requested["whole_seconds"],
        )
    notes = []
    with run_teacher_server(lambda question, seed: TEXT, faults=faults, rate=rate) as server:
        complete = server.complete

        def timed(body, authorization):
            came = time.monotonic()
            answer = complete(body, authorization)
            if body.get("messages"):  # a client may probe with none
                question = int(body["messages"][-1]["content"].split()[1].rstrip(":"))
                notes.append((came, time.monotonic(), answer[0], question))
            return answer

        server.complete = timed
        print(server.base_url, flush=True)
        sys.stdin.readline()
    print(json.dumps(notes), flush=True)


if __name__ == "__main__":
    main()
