"""Rounding goes against the buyer and a reserve is never too small."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.api_client.chat_completion import (
    RequestCost,
    compute_request_cost,
    find_error,
    parse_completion,
    parse_json_object,
)
from bridgekd.api_client.request_key import TeacherRequest, build_request, compute_request_key
from bridgekd.cost.budget import BudgetTracker, BudgetUse, Limits
from bridgekd.cost.request_cost import (
    compute_cost_microusd,
    compute_max_prompt_tokens,
    compute_reserve_microusd,
    format_microusd,
    to_microusd,
)
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.records import Message

prices = st.builds(Price, input=st.floats(0, 1000), output=st.floats(0, 1000))
tokens = st.integers(0, 10**7)


@given(prices, tokens, tokens)
def test_a_cost_is_the_exact_bill_rounded_up_by_less_than_one(price, n_prompt, n_completion):
    exact = Fraction(repr(price.input)) * n_prompt + Fraction(repr(price.output)) * n_completion
    assert 0 <= compute_cost_microusd(price, n_prompt, n_completion) - exact < 1


@given(prices, tokens, tokens, tokens, tokens)
def test_more_tokens_never_cost_less(price, a, b, more_a, more_b):
    assert compute_cost_microusd(price, a, b) <= compute_cost_microusd(
        price, a + more_a, b + more_b
    )


@given(prices, st.lists(st.text(max_size=50), max_size=5), st.integers(1, 4096), st.data())
def test_no_call_within_its_bounds_costs_more_than_its_reserve(price, texts, max_tokens, data):
    messages = [Message("user", text) for text in texts]
    n_prompt = data.draw(st.integers(0, compute_max_prompt_tokens(messages)))
    n_completion = data.draw(st.integers(0, max_tokens))
    reserve = compute_reserve_microusd(price, messages, max_tokens)
    assert compute_cost_microusd(price, n_prompt, n_completion) <= reserve


@given(st.text())
def test_a_prompt_is_bounded_by_more_than_its_bytes(text):
    assert compute_max_prompt_tokens([Message("user", text)]) > len(
        text.encode("utf-8", "surrogatepass")
    )


def test_a_price_is_the_decimal_that_was_written():
    # In binary floating point 0.1 * 3 is a little more than 0.3.
    assert compute_cost_microusd(Price(input=0.1, output=0.0), 30, 0) == 3
    assert compute_cost_microusd(Price(input=2.5, output=10.0), 1, 0) == 3
    assert compute_cost_microusd(None, 1000, 1000) == 0


@pytest.mark.parametrize(
    ("usd", "expected"), [(5.0, 5_000_000), (0.1, 100_000), (0.0000019, 1), (0.29, 290_000)]
)
def test_a_limit_in_dollars_is_rounded_down(usd, expected):
    assert to_microusd(usd) == expected


def test_dollars_show_no_more_decimals_than_needed():
    shown = [format_microusd(n) for n in (0, 1, 1_500_000, 1_234_567_890, -20_000)]
    assert shown == ["$0.00", "$0.000001", "$1.50", "$1,234.56789", "-$0.02"]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30), st.data())
def test_what_is_admitted_does_not_depend_on_the_order_of_settling(calls, data):
    """The admission loop with (maximum cost, cost) in rank order, settled in random order."""
    costs = [(max(pair), min(pair)) for pair in calls]
    limit = data.draw(st.integers(0, 500))
    account, in_flight, n_admitted = BudgetTracker(Limits(microusd=limit)), [], 0
    for max_cost, cost in costs:
        while in_flight and (
            account.find_blocking_limit(BudgetUse(1, max_cost)) or data.draw(st.booleans())
        ):
            settled = in_flight.pop(data.draw(st.integers(0, len(in_flight) - 1)))
            account.settle(BudgetUse(1, settled[0]), BudgetUse(1, settled[1]))
        if account.find_blocking_limit(BudgetUse(1, max_cost)):
            break
        account.reserve(BudgetUse(1, max_cost))
        in_flight.append((max_cost, cost))
        n_admitted += 1
    spent = expected = 0
    for max_cost, cost in costs:
        if spent + max_cost > limit:
            break
        spent, expected = spent + cost, expected + 1
    assert n_admitted == expected
    assert spent <= limit


@given(st.text())
def test_reading_a_reply_never_raises(raw):
    assert parse_completion(raw).state in ("answered", "truncated", "refused", "unparsable")


@pytest.mark.parametrize(
    ("body", "state", "text"),
    [
        ('{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}', "answered", "a"),
        ('{"choices":[{"message":{"content":"a"},"finish_reason":"length"}]}', "truncated", "a"),
        ('{"choices":[{"message":{"content":null,"refusal":"no"}}]}', "refused", "no"),
        (
            '{"choices":[{"message":{"content":""},"finish_reason":"content_filter"}]}',
            "refused",
            "",
        ),
        ('{"choices":[{"message":{"content":[{"type":"text","text":"a"}]}}]}', "answered", "a"),
        ('{"choices":[]}', "refused", ""),
        ('{"choices":[7]}', "unparsable", ""),
        ('{"error":{"message":"x"},"choices":[]}', "unparsable", ""),
        ("<html>", "unparsable", ""),
        ("[]", "unparsable", ""),
    ],
)
def test_a_body_says_its_state(body, state, text):
    reply = parse_completion(body)
    assert (reply.state, reply.text) == (state, text)


def test_a_reply_without_usage_is_billed_at_its_reserve():
    reply = parse_completion(
        '{"choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":3}}'
    )
    assert compute_request_cost(
        reply, Price(input=1, output=1), max_cost=RequestCost(9, 8, 7)
    ) == RequestCost(9, 8, 7)


def answer_with_usage(usage):
    return parse_completion(
        json.dumps({"choices": [{"message": {"content": "a"}}], "usage": usage})
    )


@pytest.mark.parametrize("n_prompt", [0, 0.0, -0.0, -1, -3.0, 3.5, True, "3", None, [3],
                                      float("nan"), float("inf")])  # fmt: skip
def test_a_prompt_count_that_cannot_be_true_is_charged_the_reserve(n_prompt):
    reply = answer_with_usage({"prompt_tokens": n_prompt, "completion_tokens": 4, "cost": 0.0})
    reserve = RequestCost(9, 8, 7)
    for price in (Price(input=1, output=1), None):
        assert compute_request_cost(reply, price, max_cost=reserve) == reserve


@pytest.mark.parametrize("n_completion", [-1, 3.5, False, None, float("nan"), float("inf")])
def test_a_completion_count_that_cannot_be_true_is_no_usage(n_completion):
    usage = {"prompt_tokens": 3, "completion_tokens": n_completion}
    assert answer_with_usage(usage).usage is None


def test_an_empty_completion_has_a_usage():
    usage = answer_with_usage({"prompt_tokens": 3, "completion_tokens": 0}).usage
    assert (usage.n_prompt_tokens, usage.n_completion_tokens) == (3, 0)


@given(st.integers(1, 10**13), st.integers(0, 10**13), st.integers(0, 10**13), st.data())
def test_a_whole_float_is_the_same_count(prompt, completion, rest, data):
    cached, reasoning = data.draw(st.integers(0, prompt)), data.draw(st.integers(0, rest))

    def build(number):
        return {
            "prompt_tokens": number(prompt),
            "completion_tokens": number(completion),
            "total_tokens": number(prompt + completion + rest),
            "prompt_tokens_details": {
                "cached_tokens": number(cached), "cache_write_tokens": number(prompt - cached)
            },
            "completion_tokens_details": {"reasoning_tokens": number(reasoning)},
        }  # fmt: skip

    usage = answer_with_usage(build(float)).usage
    assert usage == answer_with_usage(build(int)).usage
    assert type(usage.n_prompt_tokens) is int


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "one, "},
                                            {"type": "text", "text": "two"}]},
          {"type": "text", "text": "Answer: 2"}], "Answer: 2", "one, two"),
        ([{"type": "thinking", "thinking": "a string"}, {"type": "text", "text": "b"}],
         "b", "a string"),
        ([{"type": "text", "text": "a"}, {"type": "thinking", "thinking": []},
          {"type": "text", "text": "b"}], "ab", ""),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "cut"}]}], "", "cut"),
        ([{"type": "thinking", "thinking": {"text": 1}, "text": "not a text"}, 7, None,
          {"type": "text", "text": 5}, {"type": "text"}], "", ""),
    ],
)  # fmt: skip
def test_thinking_parts_of_a_content_are_the_reasoning(content, text, reasoning):
    reply = parse_completion(json.dumps({"choices": [{"message": {"content": content}}]}))
    assert (reply.state, reply.text, reply.reasoning) == ("answered", text, reasoning)


def test_a_reasoning_field_comes_before_thinking_parts():
    content = [{"type": "thinking", "thinking": "parts"}, {"type": "text", "text": "a"}]
    message = {"content": content, "reasoning_content": "field"}
    assert parse_completion(json.dumps({"choices": [{"message": message}]})).reasoning == "field"


def test_reasoning_tokens_left_out_of_the_completion_are_billed():
    reply = parse_completion(
        '{"choices":[{"message":{"content":"a","reasoning_content":"b"}}],'
        '"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115}}'
    )
    usage = reply.usage
    assert (usage.n_prompt_tokens, usage.n_completion_tokens, reply.reasoning) == (10, 105, "b")
    assert usage.n_reasoning_tokens == 100


def test_a_key_names_the_whole_request_and_nothing_else():
    teacher = TeacherOptions(model="m", base_url="http://a/v1")
    request = TeacherRequest("id", 3, (Message("user", "q"),))
    key = compute_request_key(build_request(teacher, request))
    elsewhere = teacher.model_copy(update={"base_url": "http://b/v1", "timeout_s": 1.0})
    assert key.startswith("v1:")
    assert key == compute_request_key(
        build_request(elsewhere, TeacherRequest("other", 9, request.messages))
    )
    others = [
        build_request(teacher, TeacherRequest("id", 3, request.messages, sample_index=1)),
        build_request(teacher, TeacherRequest("id", 3, (Message("user", "q "),))),
        build_request(teacher.model_copy(update={"temperature": 0.5}), request),
        build_request(teacher.model_copy(update={"provider": "other"}), request),
    ]
    assert len({key, *map(compute_request_key, others)}) == 5


def test_a_body_nested_beyond_reason_is_unparsable():
    for raw in ("[" * 100_000, '{"choices":' + "[" * 100_000 + "]" * 100_000 + "}"):
        assert parse_completion(raw).state == "unparsable"
        assert find_error(parse_json_object(raw)) == ""
