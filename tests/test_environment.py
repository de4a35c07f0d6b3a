"""Proxies and certificates of the environment: one sentence before anything is sent."""

import os
from pathlib import Path

import pytest

import bridgekd
from bridgekd.api_client.environment import check_environment
from bridgekd.api_client.openai_client import ApiClient
from bridgekd.errors import InputError
from bridgekd.io.sources import resolve_data, resolve_model
from bridgekd.messages import format_text, format_value, mask_credentials
from bridgekd.recipe import TeacherOptions

URL = "https://teacher.invalid/v1"
VARIABLES = ("all_proxy", "https_proxy", "http_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "http_proxy"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("socks://gate:1080/", "a proxy's address starts with http, https, socks5 or socks5h"),
        ("ftp://gate:21", "a proxy's address starts with"),
        ("http://gate:port", "host or port is invalid"),
        ("gate:eighty", "host or port is invalid"),
        ("http://gate:70000", "host or port is invalid"),
        ("http://gate:0", "host or port is invalid"),
        ("https://[::1", "host or port is invalid"),
        ("http://", "host or port is invalid"),
        ("http://ga te:3128", "host or port is invalid"),
        ("http://" + "g" * 64 + ":1", "host or port is invalid"),
    ],
)
def test_proxy_that_no_client_can_use_is_named(monkeypatch, name, value, problem):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as caught:
        check_environment(URL)
    assert f"The environment variable {name} is {value!r}: {problem}" in str(caught.value)
    with pytest.raises(InputError, match=name):
        ApiClient(TeacherOptions(model="m", base_url=URL), "k")


def test_socks_proxy_needs_its_package(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://me:password@gate:1080")
    with pytest.raises(InputError, match="needs the package socksio") as caught:
        check_environment(URL)
    assert "socks5://[credentials]@gate:1080" in str(caught.value)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["http://gate:3128", "gate:3128", "https://me:pw@gate", "[::1]:8"]
)
def test_valid_proxy_is_accepted(monkeypatch, value):
    monkeypatch.setenv("HTTPS_PROXY", value)
    check_environment(URL)
    ApiClient(TeacherOptions(model="m", base_url=URL), "k")


def test_proxies_that_are_not_used_are_not_checked(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks://x")
    check_environment("http://127.0.0.2:8000/v1")
    monkeypatch.setenv("NO_PROXY", "other, *")
    check_environment(URL)
    ApiClient(TeacherOptions(model="m", base_url=URL), "k")


def test_lower_case_name_has_precedence(monkeypatch):
    monkeypatch.setenv("all_proxy", "http://gate:1")
    monkeypatch.setenv("ALL_PROXY", "socks://x")
    check_environment(URL)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("SSL_CERT_FILE", None, "No such file or directory"),
        ("SSL_CERT_FILE", "", "the file has no certificates in PEM format"),
        ("SSL_CERT_FILE", "-----BEGIN CERTIFICATE-----\n%%", "the file has no certificates"),
        ("SSL_CERT_DIR", None, "there is no such folder"),
        ("SSL_CERT_DIR", "a file", "there is no such folder"),
    ],
)
def test_certificates_that_cannot_be_read_are_named(monkeypatch, tmp_path, name, content, problem):
    path = tmp_path / "own.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(name, str(path))
    with pytest.raises(InputError) as caught:
        check_environment(URL)
    assert f"The environment variable {name} is {format_value(str(path))}: {problem}" in str(
        caught.value
    )


def test_run_stops_before_consent_and_writes_nothing(task, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks://gate:1080")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    before = sorted(os.listdir(task))
    with pytest.raises(InputError, match="ALL_PROXY"):
        bridgekd.run(task / "task.yaml", methods=["direct"], consent=lambda plan: 1 / 0)
    assert sorted(os.listdir(task)) == before


def test_password_with_any_character_is_masked():
    for url in ("http://me:p@ss:w/o?r#d@gate:1", "me:p@ss@gate:1", "socks5://p//w@gate:1"):
        shown = mask_credentials(url)
        assert shown.endswith("[credentials]@gate:1")
        assert not {"me", "ss"} & set(shown.replace("[credentials]", "").split(":"))


def test_messages_show_no_password_of_an_address():
    url = "https://me:pass word@host/data.csv"
    assert format_value([url]) == "['https://[credentials]@host/data.csv']"
    assert "pass" not in format_value(f"https://me:{'pass' * 50}@host/data.csv")
    assert format_text("of https://me:pass@host/v1 .") == "of https://[credentials]@host/v1 ."
    assert format_text("me@host") == "me@host"


def test_hub_source_needs_usable_proxy(monkeypatch):
    assert resolve_data("owner/name:train", Path()).stage == "hub"
    monkeypatch.setenv("HTTPS_PROXY", "http://gate:port")
    for resolve in (
        lambda: resolve_data("owner/name:train", Path()),
        lambda: resolve_model("owner/name", Path(), None),
    ):
        with pytest.raises(InputError, match="HTTPS_PROXY is 'http://gate:port'"):
            resolve()
