"""What workers elsewhere are given and give back, without any engine: parts of limits, luggage, lines, errors."""

from __future__ import annotations

import os
import pickle
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

import muse
from muse import errors, models, testing
from muse.batch import Batch, BatchRequest
from muse.batching.ray.driver import DriverState
from muse.batching.ray.quota_shares import REST_S, QuotaShares, most_parts, one_part
from muse.batching.ray.worker import Worker
from muse.batching.ray.worker_config import SecretEnv, SpendSnapshot, WorkerConfig, secret_env
from muse.batching.ray.worker_journal import WorkerJournal
from muse.batching.store.serialization import pack
from muse.errors import BudgetExceeded, ConfigError, MuseError, ProviderDown
from muse.journal.policy_config import Limit
from muse.types.messages import Attempt
from muse.types.usage import Usage
from muse.usage_log import ledger
from tests.journal_folder import JournalFolder

SECRET = "sk-openai-0123456789abcdef-secret"


@pytest.fixture(name="elsewhere")
def _elsewhere(tmp_path: Path, journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Temporary folders below this one, and variables that are set back."""
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    monkeypatch.setenv("JOURNAL_PATH", str(journal.path))


def worker_config(section: dict[str, object] | None = None, *spent: SpendSnapshot) -> WorkerConfig:
    return WorkerConfig(muse.__version__, section or {"default": {"provider": "echo"}}, spent)


def test_parts_come_to_no_more_than_the_limit() -> None:
    limits = [{"requests_per_minute": 10, "in_flight": 7, "tokens_per_minute": 100_000, "usd_per_day": 3}]
    part = one_part({"limits": limits, "default": {}}, 3)
    assert part["limits"] == [{"requests_per_minute": 3, "in_flight": 2, "tokens_per_minute": 33_333, "usd_per_day": 3}]
    assert limits[0]["in_flight"] == 7


def test_a_limit_goes_into_no_more_parts_than_it_has_calls() -> None:
    limits = [Limit("a", requests_per_minute=50), Limit("b", in_flight=4), Limit("c", tokens_per_minute=500_000)]
    assert most_parts(limits) == (4, "b")
    assert most_parts([Limit("d", usd_per_day=1.0)]) is None
    assert most_parts([Limit("e", tokens_per_minute=10)]) == (1, "e")


@given(some.lists(some.tuples(some.sampled_from(["come", "go", "grow", "wait", "use"]), some.integers(0, 30))))
def test_whoever_comes_and_goes_no_minute_has_more_than_the_limit(steps: list[tuple[str, int]]) -> None:
    now, limit, spent = 0.0, 60, []
    parts = QuotaShares(clock=lambda: now)
    parts.begin(2)
    ready: dict[str, float] = {}
    for number, (step, amount) in enumerate(steps):
        now += amount
        match step:
            case "come":
                rest_s = parts.take(f"worker {number}")
                if rest_s is not None:
                    ready[f"worker {number}"] = now + rest_s
            case "go" if ready:
                gone, _ = ready.popitem()
                parts.give_up(gone)
            case "grow" if parts.count < 6:
                parts.add(1)
            case "wait":
                parts.drop_unused()
            case _:
                pass
        for worker, ready_s in ready.items():
            used = sum(calls for name, at, calls in spent if name == worker and at > now - 60)
            if ready_s <= now and parts.count:
                spent.append((worker, now, max(limit // parts.count - used, 0)))
        assert sum(calls for _, at, calls in spent if at > now - 60) <= limit


def test_a_part_that_was_given_up_rests_for_a_minute() -> None:
    now = 100.0
    parts = QuotaShares(clock=lambda: now)
    parts.begin(1)
    assert parts.take("one") == 0
    assert parts.take("two") is None
    parts.give_up("one")
    now += 1
    assert parts.take("two") == REST_S - 1


def test_keys_travel_by_name_and_are_in_no_text_of_what_carries_them(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.write({"env": {"GOOGLE_API_KEY": "sk-google-in-config"}, "providers": {"default": {"provider": "openai"}}})
    (journal.path / ".env").write_text(f"OPENAI_API_KEY={SECRET}\n")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-this-node")
    carried = secret_env()
    monkeypatch.setenv("GOOGLE_API_KEY", "sk-of-another-account")
    assert "OPENAI_API_KEY" in repr(carried)
    assert "sk-" not in f"{carried} {carried!r} {DriverState().worker_config(1)!r}"
    assert "sk-" not in str(pickle.dumps(DriverState().worker_config(1)))
    pickle.loads(pickle.dumps(carried)).apply()
    assert os.environ["OPENAI_API_KEY"] == SECRET
    assert "GOOGLE_API_KEY" not in os.environ  # the driver has none, and a node's own is none of its


def test_another_version_of_muse_on_a_node_is_refused(elsewhere: Path) -> None:
    with pytest.raises(ConfigError, match=r"muse-router on a node: found version .*, expected 0\.0\.1"):
        WorkerJournal(WorkerConfig("0.0.1", {}), SecretEnv({}))
    assert list(elsewhere.iterdir()) == []


def test_what_others_spent_counts_for_budgets_and_comes_back_to_nobody(elsewhere: Path) -> None:
    section = {"default": {"provider": "echo"}, "budgets": [{"context": "app.*", "usd": 1.0}]}
    today = time.strftime("%Y%m%d")
    worker_journal = WorkerJournal(
        worker_config(section, SpendSnapshot(today, "app.tides", "openai", "gpt-5", 900, 0.4, 2)), SecretEnv({})
    )
    assert list(elsewhere.iterdir()) == [worker_journal.folder]
    ledger.append({"context": "app.tides", "provider": "openai", "model": "gpt-5", "usage": {}, "cost_usd": 0.1})
    assert [line for line in worker_journal.lines() if b"told" in line] == []
    worker_journal.settle(
        worker_config(section, SpendSnapshot(today, "app.tides", "openai", "gpt-5", 950, 0.7, 2))
    )  # 0.1 is our own
    lines = list(ledger.read())
    assert sum(line["cost_usd"] or 0.0 for line in lines) == pytest.approx(0.7)
    assert sum(line["usage"].get("total_tokens", 0) for line in lines) == 950
    assert worker_journal.lines() == []
    worker_journal.settle(worker_config(section, SpendSnapshot(today, "app.tides", "openai", "gpt-5", 950, 1.3, 2)))
    with pytest.raises(BudgetExceeded):
        models.generate("When?", "app.tides")
    worker_journal.close()
    assert list(elsewhere.iterdir()) == []


async def test_a_worker_answers_what_it_is_given_with_one_line_for_each_call(elsewhere: Path) -> None:
    worker = Worker()
    await worker.begin(worker_config(), SecretEnv({}))
    good, bad = BatchRequest("When?", "app.tides"), BatchRequest("When?", "app.tides", timeout_s=-1.0)
    with testing.script("Low water at six."):
        await worker.ask([(7, pack(good)[0]), (8, pack(bad)[0])])
        answers, lines = await worker.take(0)
        while len(answers) < 2:
            more = await worker.take(len(lines))
            answers, lines = answers + more[0], lines + more[1]
    found = dict(answers)
    found[7].fill_in(good)
    found[8].fill_in(bad)
    assert (good.response, good.provider_used, good.state) == ("Low water at six.", "echo", "done")
    assert (bad.response, bad.state, type(bad.exception)) == (None, "failed", ValueError)
    assert pickle.loads(pickle.dumps(found[7])) == found[7]
    assert len(lines) == len(good.attempts) == 1
    assert await worker.end(0) == lines  # if nothing had arrived
    assert os.listdir(elsewhere) == []


def test_every_error_is_the_same_on_the_other_side() -> None:
    down = ProviderDown("gone", provider="openai", model="gpt-5", status=503, retryable=True)
    down.attempts = (Attempt("openai", "gpt-5", 0.5, Usage(3, 4), "ProviderDown"),)
    down.others = (errors.CircuitOpen("left alone", retry_after_s=3.0),)
    raised: list[MuseError] = [
        down,
        ConfigError("providers", "1", "an object"),
        errors.UnknownProviderError("x", ["a"]),
        errors.MissingKeyError("OPENAI_API_KEY"),
        errors.LimitReached("no room", retry_after_s=2.0),
        errors.DeadlineExceeded("too late"),
        errors.BlockedReply("no", text="part"),
    ]
    for error in raised:
        error.add_note("seen on its way")
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.args) == (type(error), str(error), error.args)
        assert {name: str(value) for name, value in vars(copy).items()} == {
            name: str(value) for name, value in vars(error).items()
        }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "spark"}, "engine: found 'spark', expected 'here' or 'ray'"),
        ({"engine": "ray", "client": object()}, "client: found one for engine 'ray'"),
        ({"engine": "ray", "lane": "overnight", "ledger": "x"}, "engine: found 'ray' with lane 'overnight'"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(journal: JournalFolder, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Batch(**options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(said)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed here")
def test_whoever_has_no_ray_is_told_how_to_get_it(journal: JournalFolder) -> None:
    with pytest.raises(ConfigError, match=r"found 'ray' without Ray, expected pip install 'muse-router\[ray\]'"):
        Batch(engine="ray")


def test_more_workers_than_a_limit_has_calls_are_refused(journal: JournalFolder) -> None:
    journal.route(limits=[{"in_flight": 4}])
    with pytest.raises(ConfigError, match=r"workers: found 5, expected 1 to 4, as providers.limits\[0\]"):
        DriverState().begin(5)
    assert DriverState().most_workers(64) == 4


def test_a_worker_that_falls_silent_loses_its_part(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.route(limits=[{"in_flight": 4}])
    now = 1_000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    home = DriverState()
    home.begin(1)
    assert home.lease("one") == 0.0
    assert home.lease("two") is None
    assert home.report("one", [b'{"context": "app.tides"}']) is not None
    now += 20.0
    assert home.lease("two") == pytest.approx(REST_S)
    assert home.report("one", []) is None
    assert [line["context"] for line in journal.lines()] == ["app.tides"]
