"""What the errors of servers mean, in the formats of six providers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.api_client.error_response import ErrorResponse

GOOGLE_KEY = [
    {
        "error": {
            "code": 400,
            "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT",
            "details": [{"@type": "...ErrorInfo", "reason": "API_KEY_INVALID"}],
        }
    }
]
MISTRAL_FIELD = {
    "object": "error",
    "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"]}]},
    "type": "invalid_request_error",
}


def openai(code, message="text", **more):
    return {"error": {"message": message, "type": "x", "code": code, "param": None} | more}


CASES = [
    (401, openai("invalid_api_key"), "api.openai.com", "key"),
    (403, openai("invalid_api_key"), "api.openai.com", "key"),
    (403, {"error": {"message": "This API key is disabled."}}, "host", "key"),
    (403, "Invalid API key\n", "host", "key"),
    (403, openai("unsupported_country_region_territory"), "api.openai.com", "forbidden"),
    (403, openai("ip_not_authorized", "Your IP may not use this key"), "host", "forbidden"),
    (403, openai("keyword_blocked"), "host", "forbidden"),
    (403, "<html><style>@keyframes x</style>Blocked</html>", "host", "forbidden"),
    (403, openai("model_not_found", "no access to gpt-4"), "api.openai.com", "model"),
    (400, GOOGLE_KEY, "generativelanguage.googleapis.com", "key"),
    (429, openai("insufficient_quota"), "api.openai.com", "quota"),
    (429, openai(None, type="insufficient_quota"), "api.openai.com", "quota"),
    (429, openai("organization_spend_limit_exceeded"), "api.openai.com", "quota"),
    (402, {"message": "Insufficient Balance"}, "api.deepseek.com", "quota"),
    (400, openai(None, "Your credit balance is too low"), "api.anthropic.com", "quota"),
    (
        429,
        {"error": {"type": "rate_limit_error",
                   "details": {"error_code": "enforced_spend_limit_reached"}}},
        "api.anthropic.com",
        "quota",
    ),
    (404, openai("model_not_found"), "api.openai.com", "model"),
    (404, {"object": "error", "message": "no such model", "code": 404}, "host", "model"),
    (404, "no such page", "host", "address"),
    (404, "", "host", "address"),
    (400, openai("unsupported_parameter", param="max_tokens"), "api.openai.com", "settings"),
    (422, MISTRAL_FIELD, "api.mistral.ai", "settings"),
    (
        400,
        openai("invalid_request_error", "`temperature` is deprecated for this model"),
        "api.anthropic.com",
        "settings",
    ),
    (
        400,
        openai("invalid_request_error", "You have reached your specified API usage limits."),
        "api.anthropic.com",
        "quota",
    ),
    (403, openai("403", "Key limit exceeded (monthly limit)."), "openrouter.ai", "quota"),
    (400, openai("content_filter", param="prompt"), "x.openai.azure.com", "refused"),
    (403, openai("403", "flagged by moderation"), "openrouter.ai", "refused"),
    (413, "<html>too large</html>", "host", "page"),
    (400, "<html>Bad Request</html>", "host", "page"),
    (422, "", "host", "page"),
    (400, "{}", "host", "page"),
    (400, "upstream sent a bad request", "host", "page"),
    (413, {"detail": "The prompt has too many bytes."}, "host", "refused"),
    (
        400,
        openai(None, "A context window of 512 tokens holds no 300 more.", param="max_tokens"),
        "host",
        "length",
    ),
    (429, openai("tokens", "Request too large: limit 500, not 900."), "host", "refused"),
    (429, openai("rate_limit_exceeded"), "api.openai.com", "rate_limited"),
    (498, openai("capacity_exceeded"), "api.groq.com", "rate_limited"),
    (529, openai("overloaded_error"), "api.anthropic.com", "rate_limited"),
    (500, openai("server_error"), "host", "failed"),
    (504, "gateway timeout", "host", "unknown"),
    (418, "teapot", "host", "other"),
]  # fmt: skip


@pytest.mark.parametrize("status, body, host, kind", CASES)
def test_an_error_is_read_for_what_it_means(status, body, host, kind):
    text = body if isinstance(body, str) else json.dumps(body)
    assert ErrorResponse.parse(status, text).classify(host) == kind


def test_a_question_that_names_a_setting_is_not_taken_for_the_recipe():
    body = openai("invalid_prompt", "the prompt about temperature and stop was flagged")
    assert ErrorResponse.parse(400, json.dumps(body)).classify("host") == "refused"


def test_a_message_has_no_control_characters_and_is_one_line():
    text = "not\x1b[2J here,\n\x07 sorry"
    for body in (text, json.dumps({"error": {"message": text}}), json.dumps({"detail": text})):
        assert ErrorResponse.parse(404, body).message == "not [2J here, sorry"
    for body in ("<html>lost</html>", "null", "404", '"text"', ""):
        assert ErrorResponse.parse(404, body).message == ""


@given(st.integers(300, 599), st.text() | st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "message", "code", "details", "x"]), inner),
).map(json.dumps))  # fmt: skip
def test_reading_an_error_never_raises(status, body):
    assert ErrorResponse.parse(status, body).classify("host")
