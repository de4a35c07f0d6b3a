"""Prices by token type, the published table, and request fields by model."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridgekd.api_client.chat_completion import RequestCost, compute_request_cost, parse_completion
from bridgekd.api_client.request_key import (
    TeacherRequest,
    build_request,
    compute_request_key,
    get_payload,
)
from bridgekd.cost.request_cost import compute_cost_microusd, compute_reserve_microusd
from bridgekd.errors import InputError
from bridgekd.recipe import BudgetOptions, Price, TeacherOptions, find_published_price
from bridgekd.recipe.prices import read_price_table
from bridgekd.records import Message
from bridgekd.teacher.transports import resolve_teacher

FULL = Price(input=2.0, output=10.0, cached_input=0.5, cache_write=2.5, reasoning=12.0)


def test_each_token_type_has_its_own_price():
    cost = compute_cost_microusd(FULL, 100, 50, n_cached=40, n_written=20, n_reasoning=30)
    assert cost == 40 * 2 + 20 * 2.5 + 40 * 0.5 + 20 * 10 + 30 * 12
    assert (
        compute_cost_microusd(FULL, 100, 0, n_cached=40) == 60 * 2.5 + 40 * 0.5
    )  # cache writes are not reported: the maximum
    assert compute_cost_microusd(Price(input=2, output=1, cache_write=0), 100, 0) == 200
    assert (
        compute_cost_microusd(Price(input=2, output=10), 100, 50, n_cached=9, n_reasoning=9) == 700
    )


amounts = st.none() | st.floats(0, 100).map(lambda x: round(x, 3))


@given(
    st.builds(
        Price,
        input=st.floats(0, 100).map(lambda x: round(x, 3)),
        output=st.floats(0, 100).map(lambda x: round(x, 3)),
        cached_input=amounts,
        cache_write=amounts,
        reasoning=amounts,
    ),
    st.text(max_size=20),
    st.integers(1, 500),
    st.data(),
)
def test_no_usage_costs_more_than_reserve(price, text, max_tokens, data):
    n_prompt = data.draw(st.integers(0, len(text.encode())))
    cost = compute_cost_microusd(
        price,
        n_prompt,
        max_tokens,
        n_cached=data.draw(st.integers(0, n_prompt)),
        n_written=data.draw(st.none() | st.integers(0, n_prompt)),
        n_reasoning=data.draw(st.integers(0, max_tokens)),
    )
    assert cost <= compute_reserve_microusd(price, [Message("user", text)], max_tokens)


@pytest.mark.parametrize(
    "usage, expected",
    [
        # OpenAI: details inside the counts
        ({"prompt_tokens": 100, "completion_tokens": 60, "total_tokens": 160,
          "prompt_tokens_details": {"cached_tokens": 40},
          "completion_tokens_details": {"reasoning_tokens": 50}}, (100, 60, 40, 50)),
        # Gemini: thinking only in the total
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 160}, (100, 60, 0, 50)),
        ({"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100,
          "completion_tokens_details": {"reasoning_tokens": 60}}, (100, 60, 0, 60)),
        # DeepSeek: cache hits beside the counts
        ({"prompt_tokens": 100, "completion_tokens": 10, "prompt_cache_hit_tokens": 64,
          "prompt_cache_miss_tokens": 36}, (100, 10, 64, 0)),
        # Anthropic: details that are empty
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110,
          "prompt_tokens_details": None, "completion_tokens_details": None}, (100, 10, 0, 0)),
    ],
)  # fmt: skip
def test_usage_is_parsed_in_format_of_each_provider(usage, expected):
    body = {"choices": [{"message": {"content": "a"}}], "usage": usage}
    import json

    bill = compute_request_cost(parse_completion(json.dumps(body)), FULL, max_cost=RequestCost())
    found = (bill.n_prompt_tokens, bill.n_completion_tokens, bill.n_cached_tokens)
    assert (*found, bill.n_reasoning_tokens) == expected


def test_every_published_price_has_date_and_source():
    table = read_price_table()
    assert len(table) > 50
    for row in table.values():
        assert datetime.date.fromisoformat(row.read_on) <= datetime.date(2026, 11, 22)
        assert row.source.startswith(("price table of", "provider table of", "https://api-"))
        assert 0 < row.price.input <= row.price.output
        assert (row.price.cached_input or 0) <= row.price.input <= (row.price.cache_write or 1e9)


def test_published_price_depends_on_address():
    assert find_published_price("https://api.openai.com/v1", "gpt-4o").price.output == 10
    assert find_published_price("http://localhost:8000/v1", "gpt-4o") is None
    assert find_published_price("https://api.openai.com/v1", "gpt-4o-mine") is None
    assert TeacherOptions(model="gpt-4o").list_price.input == 2.5
    assert TeacherOptions(model="gpt-4o", price={"input": 1, "output": 1}).list_price.input == 1


def test_batch_factor_is_applied_once():
    price = resolve_teacher(TeacherOptions(model="gpt-4o-mini", transport="batch")).price
    assert (price.input, price.output) == (0.075, 0.3)
    assert price.for_transport(has_batch_price=True) == price
    assert resolve_teacher(TeacherOptions(model="gpt-4o-mini")).price.input == 0.15


def test_prompt_above_maximum_of_its_price_is_refused():
    price = Price(input=1, output=1, max_prompt_tokens=1000)
    teacher = resolve_teacher(TeacherOptions(model="m", price=price))
    short, long = (TeacherRequest("a", 0, (Message("user", "x" * n),)) for n in (800, 900))
    teacher.check_prompt_length("a", teacher.compute_max_cost(short))
    with pytest.raises(InputError, match=r"Example a .* known up to 1,000"):
        teacher.check_prompt_length("a", teacher.compute_max_cost(long))


def test_other_request_fields_are_reserved_as_prompt():
    request = TeacherRequest("a", 0, (Message("user", "x"),))
    schema = {"type": "json_schema", "json_schema": {"description": "x" * 5000}}
    teacher = TeacherOptions(model="m", price=FULL)
    with_schema = teacher.model_copy(update={"response_format": schema})
    bare = resolve_teacher(teacher).compute_max_cost(request)
    beside = resolve_teacher(with_schema).compute_max_cost(request)
    assert beside.n_prompt_tokens > bare.n_prompt_tokens + 5000
    assert beside.cost_microusd > bare.cost_microusd + 5000 * 2


def sent(**teacher):
    request = TeacherRequest("a", 0, (Message("user", "q"),), sample_index=2)
    payload = get_payload(build_request(TeacherOptions(**teacher), request))
    return {k: v for k, v in payload.items() if k not in ("model", "messages")}


def test_reasoning_models_get_their_token_limit_and_no_temperature():
    assert sent(model="gpt-4o") == {"max_tokens": 512, "temperature": 0.0}
    assert sent(model="o3-mini") == {"max_completion_tokens": 512}
    assert sent(model="openai/gpt-6-sol") == {"max_completion_tokens": 512}
    assert sent(model="gpt-5-chat-latest") == {"max_tokens": 512, "temperature": 0.0}
    assert sent(model="claude-opus-4-7") == {"max_tokens": 512}
    assert sent(model="o3", temperature=1.0, max_tokens_field="max_tokens") == {
        "max_tokens": 512,
        "temperature": 1.0,
    }


def test_every_option_is_sent_and_samples_differ_in_seed():
    given = {
        "top_p": 0.9,
        "seed": 7,
        "stop": ("END",),
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
        "extra": {"thinking": {"type": "disabled"}},
    }
    assert sent(model="m", **given) == {
        "max_tokens": 512,
        "temperature": 0.0,
        "top_p": 0.9,
        "seed": 9,
        "stop": ["END"],
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
        "thinking": {"type": "disabled"},
    }


def test_request_of_first_version_keeps_its_key():
    request = TeacherRequest("a", 0, (Message("user", "q"),))
    call = build_request(TeacherOptions(model="m", max_tokens=9), request)
    assert call == {
        "provider": "openai",
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "sample_index": 0,
    }
    assert compute_request_key(call).startswith("v1:")


@pytest.mark.parametrize(
    "bad",
    [
        {"extra": {"max_tokens": 9}},
        {"extra": {"n": 4}},
        {"transport": {"name": "replay", "file": "r.py"}},
        {"recordings": "r.jsonl"},
        {"expected_completion_tokens": (9, 3)},
    ],
)
def test_contradicting_teacher_options_are_refused(bad):
    with pytest.raises(ValidationError):
        TeacherOptions(model="m", **bad)


def test_accepted_rationales_need_another_limit():
    with pytest.raises(ValidationError, match="at least one of"):
        BudgetOptions(accepted_rationales=5)
