"""The journal: whole lines or nothing, whatever happens to the writer."""

import json
import subprocess
import sys
import threading

import pytest

from agentevolve.protocols import AgentevolveError
from agentevolve.run.journal import CHUNK, Journal

LINES = [{"n": 1, "text": "a\nb"}, {"n": 2, "text": "ä\u2028"}, {"n": 3, "text": ""}]

CRAMPED = """
import json, resource, signal, sys
from pathlib import Path
from agentevolve.run.journal import Journal
from agentevolve.protocols import AgentevolveError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
room = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
try:
    journal.append({"n": 1}, {"n": "x" * room})
except AgentevolveError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append({"n": 2})
"""


def test_what_was_appended_is_read_back_in_order_by_anyone(tmp_path):
    journal = Journal(tmp_path / "deep" / "j.jsonl")
    assert journal.read() == []
    journal.append(LINES[0])
    journal.append(*LINES[1:])
    assert journal.read() == Journal(journal.path).read() == LINES


def test_a_torn_last_line_is_unread_and_cut_off_at_the_next_append(tmp_path):
    path = tmp_path / "j.jsonl"
    whole = "".join(json.dumps(line) + "\n" for line in LINES[:2]).encode()
    for torn in range(1, 12):
        path.write_bytes(whole + json.dumps(LINES[2]).encode()[:torn])
        assert Journal(path).read() == LINES[:2]
        assert len(path.read_bytes()) == len(whole) + torn
        Journal(path).append({"n": 9})
        assert Journal(path).read() == [*LINES[:2], {"n": 9}]


@pytest.mark.parametrize("damage", [b"{", b"[1]", b"7", b"", b"\xff\xfe", b"{'n': 1}"])
def test_damage_is_named_by_file_and_line_and_left_as_it_is(tmp_path, damage):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"n":1}\n' + damage + b'\n{"n":3}\n')
    before = path.read_bytes()
    with pytest.raises(AgentevolveError, match=r"j\.jsonl:2: not a journal line"):
        Journal(path).read()
    assert path.read_bytes() == before


def test_several_threads_do_not_mix_their_lines(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    writers = [
        threading.Thread(target=lambda k=k: [journal.append({"writer": k, "n": n, "text": "x" * 300}) for n in range(25)])
        for k in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = journal.read()
    assert len(lines) == 100
    for k in range(4):
        assert [line["n"] for line in lines if line["writer"] == k] == list(range(25))


@pytest.mark.parametrize("before", [b"", b'{"n":0}\n'])
def test_a_full_disk_takes_all_or_nothing_and_the_next_append_is_whole(tmp_path, before):
    path = tmp_path / "j.jsonl"
    path.write_bytes(before)
    done = subprocess.run([sys.executable, "-c", CRAMPED, str(path), "40"], capture_output=True, text=True, timeout=60)
    assert "j.jsonl: cannot write: File too large" in done.stdout, done.stderr
    assert path.read_bytes() == before + b'{"n":2}\n'


def test_a_device_without_space_is_one_clear_line(tmp_path):
    (tmp_path / "j.jsonl").symlink_to("/dev/full")
    with pytest.raises(AgentevolveError, match=r"j\.jsonl: cannot write: No space left on device"):
        Journal(tmp_path / "j.jsonl").append({"n": 1})


def test_lone_surrogates_are_read_back(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append({"text": "bad \ud800 sign"})
    assert journal.read() == [{"text": "bad \ud800 sign"}]


@pytest.mark.parametrize("torn", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK])
@pytest.mark.parametrize("whole", [b"", b'{"n":1}\n', b'{"n":"' + b"x" * (2 * CHUNK) + b'"}\n'])
def test_a_torn_line_of_any_length_is_cut_off_by_a_writer_alone(tmp_path, whole, torn):
    path = tmp_path / "j.jsonl"
    path.write_bytes(whole + b"{" * torn)
    Journal(path).read()
    assert path.read_bytes() == whole + b"{" * torn
    Journal(path).append({"n": 2})
    assert path.read_bytes() == whole + b'{"n":2}\n'


def test_a_new_journal_and_no_other_begins_with_its_opening(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"torn"')
    for n in (1, 2):
        Journal(path, {"format": 1}).append({"n": n})
    assert Journal(path).read() == [{"format": 1}, {"n": 1}, {"n": 2}]
    (tmp_path / "old.jsonl").write_text('{"n":0}\n')
    Journal(tmp_path / "old.jsonl", {"format": 1}).append({"n": 1})
    assert Journal(tmp_path / "old.jsonl").read() == [{"n": 0}, {"n": 1}]


WRITER = """
import sys
from pathlib import Path
from agentevolve.run.journal import Journal
path, who, anew = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "anew"
journal = Journal(path)
for n in range(300):
    journal = Journal(path) if anew else journal
    journal.append({"who": who, "n": n, "text": "x" * 2000})
    print(who, n, flush=True)
"""


@pytest.mark.parametrize("anew", ["once", "anew"])
def test_what_several_processes_append_is_all_there_whoever_opens_and_reads_it(tmp_path, anew):
    path = tmp_path / "j.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(who), anew], stdout=subprocess.PIPE, text=True)
        for who in range(3)
    ]
    while any(writer.poll() is None for writer in writers):
        Journal(path).read()
    acknowledged = sorted(line for writer in writers for line in writer.communicate()[0].splitlines())
    assert sorted(f"{line['who']} {line['n']}" for line in Journal(path).read()) == acknowledged
    assert len(acknowledged) == 900
