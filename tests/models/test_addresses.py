"""Several servers of one model: a task keeps to one, none is overloaded, and one that fails is left out for a while."""

import json
import sys
from collections import Counter
from contextlib import ExitStack

import pytest
from faulty import Server, backend_words, outcomes, runs, settled, walk
from hypothesis import given
from hypothesis import strategies as st
from worlds import task_file

from agentevolve.cli.main import main
from agentevolve.models.addresses import SLACK, Addresses

URLS = ["http://a/v1", "http://b/v1", "http://c/v1"]


def chosen(addresses, task):
    with addresses.one(task) as url:
        return url


def test_a_task_keeps_to_one_and_tasks_are_shared_out():
    addresses = Addresses(URLS)
    first = {task: chosen(addresses, task) for task in map(str, range(300))}
    assert first == {task: chosen(addresses, task) for task in first}
    assert all(60 < n < 140 for n in Counter(first.values()).values())


def test_one_server_more_moves_only_the_tasks_that_become_its_own():
    before, after = Addresses(URLS[:2]), Addresses(URLS)
    moved = {task for task in map(str, range(300)) if chosen(before, task) != chosen(after, task)}
    assert {chosen(after, task) for task in moved} == {URLS[2]}


@given(st.lists(st.sampled_from("abcd"), max_size=40))
def test_no_server_has_many_more_calls_under_way_than_its_share(tasks):
    addresses = Addresses(URLS)
    with ExitStack() as under_way:
        calls = Counter(under_way.enter_context(addresses.one(task)) for task in tasks)
    assert all(n <= SLACK * len(tasks) / 3 + 1 for n in calls.values())


def test_one_that_failed_rests_unless_all_do():
    addresses = Addresses(URLS[:2])
    addresses.failed(URLS[0])
    assert {chosen(addresses, str(n)) for n in range(50)} == {URLS[1]}
    addresses.failed(URLS[1])
    assert {chosen(addresses, str(n)) for n in range(50)} == set(URLS[:2])


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    def ended(*words):
        capsys.readouterr()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["agentevolve", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return ended


def several(*servers, **options):
    words = list(backend_words(servers[0], **options))
    words[words.index("--api-base") + 1] = ",".join(server.url for server in servers)
    return words


def test_a_run_on_two_servers_is_shared_out_and_every_turn_of_a_task_goes_to_one(command, tmp_path):
    task_file(tmp_path, length=2, limit=6)
    with Server(walk) as one, Server(walk) as other:
        words = ("run", "corridor.yaml", *several(one, other), "--limit", "16", "--workers", "1", "--out", "out", "--quiet")
        code, err = command(*words)
        assert code == 0, err
        assert {outcome[4] for outcome in outcomes(tmp_path).values()} == {1.0}
        assert len(one.served) % 2 == 0 and len(one.served) + len(other.served) == 32
        assert min(len(one.served), len(other.served)) >= 6
        (run,) = runs(tmp_path)
        assert run.spent().tokens == one.reported() + other.reported()


def test_a_server_that_fails_is_left_out_and_no_attempt_is_lost(command, tmp_path):
    task_file(tmp_path, length=2, limit=6)
    with Server(walk) as well, Server(walk, {"500": 1.0}) as ill:
        words = several(well, ill, tries=4, pause=0.01)
        code, err = command("run", "corridor.yaml", *words, "--limit", "24", "--workers", "4", "--out", "out", "--quiet")
        assert code == 0, err
        assert {outcome[4] for outcome in outcomes(tmp_path).values()} == {1.0}
        assert 1 <= len(ill.served) <= 8
        settled(tmp_path, well)


def test_a_list_in_a_config_is_several_servers(command, tmp_path):
    task_file(tmp_path, length=2, limit=4)
    with Server(walk) as one, Server(walk) as other:
        about = {"tasks": "corridor.yaml", "model": "openai/test", "api_base": [one.url, other.url], "train": {"tasks": 4}}
        about |= {"val": {"tasks": 8}, "arms": ["base"], "settings": {"samples": 1, "reflections": 0, "rows": 0}}
        (tmp_path / "evolve.yaml").write_text(json.dumps(about))
        code, err = command("evolve", "evolve.yaml", "--out", "out", "--quiet")
        assert code == 0, err
        assert one.served and other.served
