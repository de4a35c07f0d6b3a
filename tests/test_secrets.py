"""What leaves this machine, and what a server that repeats the key can put into our files."""

import asyncio
import base64
import json
import string
import threading
import traceback
from contextlib import aclosing, contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridgekd.api_client.openai_client import ApiClient
from bridgekd.api_client.redact_key import KeyRedactor
from bridgekd.errors import InputError
from bridgekd.io.load_recipe import load_recipe
from bridgekd.recipe import TeacherOptions

KEY = "sk-Canary/0+123456789_never-shown"
FROM_ENVIRONMENT = (
    "X-Leak: leaked\nAuthorization: Bearer leaked\nuser-agent: leaked\nCookie: leaked\n"
    "Host: leaked\nACCEPT: leaked\nX-Stainless-Lang: leaked"
)


class HeaderServer(ThreadingHTTPServer):
    """A server that answers every request and keeps its headers."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HeaderHandler)
        self.seen = []


class HeaderHandler(BaseHTTPRequestHandler):
    def answer(self):
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b'{"data": [], "choices": [], "id": "f"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *args):
        pass


@contextmanager
def serving_headers():
    server = HeaderServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_headers_meant_for_openai_reach_no_other_host(monkeypatch):
    """Every header of every kind of request is one that we chose, with our own value."""
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", FROM_ENVIRONMENT)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://leaked.invalid")

    async def send_all(client):
        await client.chat.completions.with_raw_response.create(model="m", messages=[])
        await client.completions.with_raw_response.create(model="m", prompt=[1])
        await client.files.with_raw_response.create(file=("b.jsonl", b"{}"), purpose="batch")
        await client.models.with_raw_response.list()

    async def run(url):
        async with aclosing(ApiClient(TeacherOptions(model="m", base_url=url), KEY)) as client:
            await client.send(send_all, 10)

    with serving_headers() as server:
        address = f"127.0.0.1:{server.server_port}"
        asyncio.run(run(f"http://{address}/v1"))
    assert len(server.seen) == 4
    for headers in server.seen:
        assert headers.pop("authorization") == f"Bearer {KEY}"
        assert headers.pop("host") == address
        assert headers.pop("accept") == "application/json"
        assert headers.pop("accept-encoding") == "gzip, deflate"
        assert headers.pop("connection") == "keep-alive"
        assert headers.pop("user-agent").startswith("bridgekd/")
        assert headers.pop("content-type", "").partition(";")[0] in (
            "",
            "application/json",
            "multipart/form-data",
        )
        assert headers.pop("x-stainless-raw-response") in ("true", "raw")
        headers.pop("content-length", None)
        assert not headers


def test_openai_gets_the_headers_that_are_meant_for_it(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    client = ApiClient(TeacherOptions(model="m"), KEY)
    request = client._client._client.build_request(
        "POST", "https://api.openai.com/v1/x", headers={"OpenAI-Organization": "org-1"}
    )
    asyncio.run(client._limit_headers(request))
    assert request.headers["openai-organization"] == "org-1"
    other = client._client._client.build_request(
        "POST", "https://notapi.openai.com.evil.example/v1/x", headers={"OpenAI-Project": "p"}
    )
    asyncio.run(client._limit_headers(other))
    assert "openai-project" not in other.headers and "authorization" not in other.headers


def escape_all(text):
    return "".join(f"\\u{ord(c):04x}" for c in text)


SPELLINGS = {
    "plain": KEY,
    "upper": KEY.upper(),
    "slashes": KEY.replace("/", "\\/"),
    "json": escape_all(KEY),
    "json in json": escape_all(KEY).replace("\\", "\\\\"),
    "some escapes": "".join(escape_all(c) if i % 3 else c for i, c in enumerate(KEY)),
    "url": quote(KEY, safe=""),
    "url, all": "".join(f"%{ord(c):02X}" for c in KEY),
    "html": "".join(f"&#{ord(c)};" for c in KEY),
    "html, hexadecimal": "".join(f"&#x{ord(c):x};" for c in KEY),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 in a text": base64.b64encode(f"a{KEY}b".encode()).decode(),
    "base64 of a header": base64.b64encode(f"me:{KEY}".encode()).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "start": KEY[:-4],
    "end": KEY[9:],
    "middle": KEY[8:20],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_key_is_removed_in_every_spelling(name):
    spelled = SPELLINGS[name]
    redacted = KeyRedactor(KEY).redact(f"you sent {spelled} !")
    before, _, after = redacted.partition("[key]")
    assert before.startswith("you sent ") and after.endswith(" !")
    assert len(redacted) <= len("you sent [key] !") + 12  # a base64's unclear ends stay
    assert "[key]" in redacted


@settings(max_examples=30)
@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.integers(0, len(KEY) - 12),
    st.integers(12, len(KEY)),
    st.sampled_from([json.dumps, lambda t: json.dumps(t, ensure_ascii=False), quote, escape]),
)
@example("\u0130\u017f\u212a", "&notit; &#x110000; %", 0, len(KEY), json.dumps)
def test_part_of_key_is_removed_and_other_text_is_kept(before, after, start, n, spell):
    part = KEY[start : start + n]
    redacted = KeyRedactor(KEY).redact(spell(f"{before} {part} {after}"))
    assert part not in redacted
    assert "[key]" in redacted
    other = spell(f"{before} {after}")
    assert KeyRedactor(KEY).redact(other) == other
    if spell is json.dumps:
        assert json.loads(redacted) == f"{before} [key] {after}"


@given(st.text(alphabet=string.ascii_letters + string.digits + "\\/%&#u0;", max_size=200))
def test_text_without_key_is_unchanged(text):
    assert KeyRedactor(KEY).redact(text) == text


def test_short_keys_are_no_secrets():
    assert KeyRedactor("none").redact("none of it") == "none of it"
    assert KeyRedactor("eightchr").redact("so EIGHTCHR is") == "so [key] is"


WRONG_PLACES = [
    "teacher.api_key_env=sk-{}",
    "teacher.api_key_env=gsk_{}",
    "teacher.api_key_env={}",
    "teacher.api_key_env='{} '",
    "teacher=http://me:{}@host/v1",
    "teacher=https://me:{}@host/v1",
    "teacher.base_url=http://me:{}@host/v1",
    "teacher.base_url=http://host/v1?key={}",
    "teacher.model=[{}]",
    "teacher.extra={{api_key: {}}}",
    "teacher.extra={{extra_headers: {{Authorization: Bearer {}}}}}",
    "teacher.extra={{a: [{{X-Api-Key: {}}}]}}",
    "teacher.extra={{note: sk-{}}}",
    "teacher.extra={{tool: 'https://me:{}@host'}}",
    "assistant.server={{base_url: 'http://host/v1', api_key_env: sk-{}}}",
    "data.train=https://me:{}@host/train.jsonl",
    "store=s3://me:{}@host/runs",
    "student.model=https://me:{}@host/model",
]


@pytest.mark.parametrize("override", WRONG_PLACES)
def test_secret_in_wrong_place_is_refused_and_not_shown(task, override):
    secret = "Zq7Xw9Lk3Vb5Nm1PdT8Yc2"
    with pytest.raises(InputError) as caught:
        load_recipe(task / "task.yaml", [override.format(secret)])
    shown = "".join(traceback.format_exception(caught.value))
    assert secret[3:12] not in shown
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "extra",
    [
        "{thinking: {type: disabled}}",
        "{provider: {only: [openai], data_collection: deny}}",
        "{chat_template_kwargs: {enable_thinking: false}, stop_token_ids: [1, 2]}",
        "{metadata: {max_tokens: 5, tokenizer: fast, url: 'https://host/a@b'}}",
    ],
)
def test_ordinary_extra_fields_are_accepted(task, extra):
    assert load_recipe(task / "task.yaml", [f"teacher.extra={extra}"]).teacher.extra


def test_names_of_variables_are_accepted():
    for name in ("OPENAI_API_KEY", "my_key", "K2", "TEAM_42_AZURE_OPENAI_KEY_2024", "_x"):
        assert TeacherOptions(model="m", api_key_env=name).api_key_env == name
