"""A loopback server of one model with the API of vLLM: /v1/models and /v1/completions with token
ids, stop tokens, echo and log-probabilities, over the folder's real weights.

Features can be removed: `dialect` "text" accepts no tokens, "mute" returns no log-probabilities of
a prompt. After `dies_after` answers it ends its process (as a program) or closes
every connection (in a test). As a program: python fake_inference_server.py FOLDER PORT [NAME].
"""

import json
import os
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ModelServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder, name, *, port=0, dialect="tokens", dies_after=None, exits=False):
        import torch
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

        torch.set_num_threads(1)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        self.name, self.dialect = name, dialect
        self.dies_after, self.exits = dies_after, exits
        self.bodies = []  # the bodies, in the order of arrival
        self.one_at_a_time = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """Ignore a client that has closed its connection."""

    def complete(self, body):
        """Return (status, body) of one completion."""
        with self.one_at_a_time:
            self.bodies.append(body)
            if self.dies_after is not None and len(self.bodies) > self.dies_after:
                return (os._exit(9) if self.exits else None), None
            if body["model"] != self.name:
                return 404, {"error": {"message": f"no model {body['model']}"}}
            ids = self.get_ids(body["prompt"])
            if ids is None:
                return 400, {"error": {"message": "prompt must be a string"}}
            choice = self.echo(body, ids) if body.get("echo") else self.generate_choice(body, ids)
            usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
            return 200, {"object": "text_completion", "choices": [choice], "usage": usage}

    def get_ids(self, prompt):
        if self.dialect == "text":
            return list(self.tokenizer(prompt)["input_ids"]) if isinstance(prompt, str) else None
        return prompt

    def generate_choice(self, body, ids):
        import torch

        torch.manual_seed(body.get("seed") or 0)
        sampled = {"do_sample": False}
        if body["temperature"]:
            sampled = {"do_sample": True, "temperature": body["temperature"], "top_k": 0}
        out = self.model.generate(
            inputs=torch.tensor([ids]),
            max_new_tokens=body["max_tokens"],
            eos_token_id=body.get("stop_token_ids") or self.model.generation_config.eos_token_id,
            **sampled,
        )
        text = self.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)
        is_cut_off = out.shape[1] == len(ids) + body["max_tokens"]
        return {"index": 0, "text": text, "finish_reason": "length" if is_cut_off else "stop"}

    def echo(self, body, ids):
        import torch

        if self.dialect == "mute":
            return {"index": 0, "text": "", "finish_reason": "length", "logprobs": None}
        with torch.inference_mode():
            log_p = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        own = [float(log_p[k, token]) for k, token in enumerate(ids[1:])]
        logprobs = {"token_logprobs": [None, *own, -0.5]}  # one token follows the prompt
        return {"index": 0, "text": "", "finish_reason": "length", "logprobs": logprobs}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        self.send(200, {"object": "list", "data": [{"id": self.server.name}]})

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/completions":
            return self.send(404, {"error": {"message": f"no {self.path}"}})
        status, body = self.server.complete(json.loads(raw))
        if status is None:
            self.close_connection = True
            return None
        return self.send(status, body)

    def log_message(self, format, *args):
        """Print nothing."""

    def send(self, status, body):
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@contextmanager
def serving_model(folder, name, **options):
    """Yield a ModelServer in a thread, until the block ends."""
    server = ModelServer(folder, name, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    folder, port, *named = sys.argv[1:]
    dies_after = os.environ.get("DIES_AFTER")
    print("loading", folder, flush=True)
    ModelServer(
        folder,
        named[0] if named else folder,
        port=int(port),
        dies_after=int(dies_after) if dies_after else None,
        exits=True,
    ).serve_forever()
