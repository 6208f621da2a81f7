"""The guard: who is let in, under which names, and from which pages."""

import asyncio
import base64

import pytest

from ldm_jax.config import ConfigError
from ldm_jax.web.arguments import Arguments, parse
from ldm_jax.web.security import Access, Guard


def ask(access=None, method="GET", path="/api/models", **headers):
    """The status that a request gets; 299 is the application's."""
    sent = []

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body"})

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    headers = {"host": "127.0.0.1:7860"} | {k.replace("_", "-"): v for k, v in headers.items()}
    raw = [(k.encode(), v.encode("latin-1")) for k, v in headers.items() if v is not None]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
    asyncio.run(Guard(application, access or Access())(scope, receive, send))
    answered = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
    assert "default-src 'self'" in answered["content-security-policy"]
    return sent[0]["status"]


def basic(pair):
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:7860", "[::1]:7860"])
def test_its_own_names_are_let_in(host):
    assert ask(host=host) == 299
    assert ask(host=host, origin=f"http://{host}", sec_fetch_site="same-origin") == 299


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.1", "", None, "localhost.evil"]
)
def test_foreign_hosts_are_refused(host):
    assert ask(host=host) == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"},
        {"origin": "http://127.0.0.1:7861"}, {"origin": "http://127.0.0.1"},
        {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate",
         "sec_fetch_dest": "document"},
    ],
)  # fmt: skip
def test_pages_of_other_sites_are_refused(headers):
    assert ask(**headers) == 403
    assert ask(method="POST", **headers) == 403


def test_a_link_leads_to_the_page():
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(path="/", sec_fetch_dest="document", **link) == 299
    assert ask(path="/", sec_fetch_dest="iframe", **link) == 403


def test_whoever_must_say_who_they_are():
    access = Access(auth="ann:pass:word", token="long-token")
    for good in (basic("ann:pass:word"), "Bearer long-token", basic("any:long-token")):
        assert ask(access, authorization=good) == 299
    for bad in (None, "", "Basic", "Basic ???", basic("ann:"), "Bearer x", basic("ann:pass"),
                "Bearer ann:pass:word", "Digest long-token", "Bearer ü"):  # fmt: skip
        assert ask(access, authorization=bad) == 401


def test_other_machines_need_a_password(monkeypatch):
    with pytest.raises(ConfigError, match="--auth=USER:PASSWORD or --token"):
        parse(["--models", ".", "--host=0.0.0.0"])
    arguments = parse(["--models", ".", "--host=0.0.0.0", "--auth=a:b", "--allow_host", "box"])
    assert not arguments.is_loopback
    assert all(map(arguments.access.allows_host, ("10.0.0.2:80", "box", "localhost")))
    assert not arguments.access.allows_host("evil.example")
    assert not parse(["--models", "."]).access.allows_host("10.0.0.2")
    monkeypatch.setenv("LDM_JAX_AUTH", "ann:word")
    monkeypatch.setenv("LDM_JAX_TOKEN", "long-token")
    access = parse(["--models", ".", "--host=0.0.0.0", "--token=other-token"]).access
    assert (access.auth, access.token) == ("ann:word", "other-token")
    for wrong, complaint in (
        (["--auth=a"], "USER:PASSWORD"), (["--token=short"], "8 characters"),
        (["--port=99999"], "port"), (["--max_queue=0"], "max_queue is 0"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=complaint):
            parse(["--models", ".", *wrong])
    with pytest.raises(ConfigError, match="--models=FOLDER is missing"):
        parse([])
    assert Arguments().is_loopback
