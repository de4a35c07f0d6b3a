"""The ledger's files: for their owner only, and a run notices when one of them is not there."""

import os
import stat
import threading

import pytest

from bridgekd.errors import InputError
from bridgekd.ledger.export import export_ledger
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.open_file import OpenLedgerFile
from bridgekd.ledger.spend import sum_spend
from bridgekd.ledger.verify import verify
from test_ledger import RAW, answer, reserve

N_BEFORE = 3


def remove(path, suffix):
    os.unlink(f"{path}{suffix}")


def move(path, suffix):
    os.rename(f"{path}{suffix}", path.with_name("elsewhere"))


def replace(path, suffix):
    path.with_name("other").write_bytes(b"")
    os.replace(path.with_name("other"), f"{path}{suffix}")


def count_rows(path):
    return sum(row.n_attempts for row in sum_spend(path))


@pytest.fixture
def path(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        for n in range(N_BEFORE):
            answer(ledger, n)
    return tmp_path / "l.db"


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", ".lock"])
@pytest.mark.parametrize("change", [remove, move, replace])
def test_next_reservation_stops_after_a_file_was_changed(path, change, suffix):
    with pytest.raises(InputError, match="was removed, moved or replaced"), Ledger(path) as ledger:
        answer(ledger, 50)
        change(path, suffix)
        reserve(ledger, 51)


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
@pytest.mark.parametrize("change", [remove, move, replace])
def test_end_notices_a_change_after_the_last_reservation(path, change, suffix):
    with pytest.raises(InputError, match="was removed, moved or replaced"), Ledger(path):
        change(path, suffix)


@pytest.mark.parametrize("change", [remove, move, replace])
def test_answers_that_arrive_after_the_change_are_saved(path, change):
    with pytest.raises(InputError) as error, Ledger(path) as ledger:
        attempt = reserve(ledger, 60)
        change(path, "")
        ledger.record(attempt, RAW, price=None)
        ledger.release(attempt, "unknown")
        reserve(ledger, 61)
    saved = [*path.parent.glob("l.db.saved-*"), *path.parent.glob("elsewhere")]
    assert len(saved) == 1
    assert change is move or saved[0].name in str(error.value)
    assert count_rows(saved[0]) == N_BEFORE + 1
    assert not verify(saved[0]).errors
    assert stat.S_IMODE(saved[0].stat().st_mode) == 0o600
    os.replace(saved[0], path)
    with Ledger(path) as ledger:
        answer(ledger, 61)
    assert count_rows(path) == N_BEFORE + 2


@pytest.mark.parametrize("suffix", ["-wal", "-shm", ".lock"])
@pytest.mark.parametrize("change", [remove, move])
def test_ledger_keeps_all_rows_if_a_file_beside_it_is_removed(path, change, suffix):
    with pytest.raises(InputError, match="All rows are safe"), Ledger(path) as ledger:
        answer(ledger, 50)
        change(path, suffix)
    assert count_rows(path) == N_BEFORE + 1
    assert not verify(path).errors


def test_removed_folder_is_one_sentence(path):
    with pytest.raises(InputError, match="No such file"), Ledger(path):
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()


def test_second_writer_waits_although_the_lock_file_was_removed(path):
    """Locks of the ledger's own file are between processes, so a child has it here."""
    ready, stop = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        OpenLedgerFile(path).try_lock()
        os.write(ready[1], b"x")
        os.read(stop[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    notes = []

    def let_go(note):
        notes.append(note)
        os.write(stop[1], b"x")

    with Ledger(path, on_wait=let_go) as ledger:
        answer(ledger, 70)
    os.waitpid(child, 0)
    assert len(notes) == 1 and "waiting until it is done" in notes[0]


def test_ledger_and_its_exports_are_for_their_owner_only(tmp_path):
    for name in ("l.db", "link.db"):
        (tmp_path / "link.db").unlink(missing_ok=True)
        (tmp_path / "link.db").symlink_to(tmp_path / "target.db")
        with Ledger(tmp_path / name) as ledger:
            answer(ledger)
            modes = {
                file.name: stat.S_IMODE(file.stat().st_mode)
                for file in tmp_path.iterdir()
                if file.exists() and not file.name.endswith(".lock")
            }
            assert set(modes.values()) == {0o600}, modes
    for name in ("a.csv", "a.jsonl"):
        export_ledger(tmp_path / "l.db", tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_existing_ledger_keeps_its_mode(path):
    path.chmod(0o640)
    with Ledger(path) as ledger:
        answer(ledger, 80)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_reserved_space_touches_no_file_of_the_user(tmp_path):
    victim, spare = tmp_path / "victim", tmp_path / "l.db.spare"
    victim.write_text("mine")
    spare.symlink_to(victim)
    with Ledger(tmp_path / "l.db") as ledger:
        answer(ledger)
        names = {file.name for file in tmp_path.iterdir()}
    assert (victim.read_text(), spare.is_symlink()) == ("mine", True)
    assert names == {"victim", "l.db.spare", "l.db", "l.db-wal", "l.db-shm", "l.db.lock"}


def test_readers_of_another_thread_keep_the_lock(path):
    """Closing a file ends all locks that the process has on it; SQLite delays that close."""
    with Ledger(path) as ledger:
        thread = threading.Thread(target=count_rows, args=[path])
        thread.start()
        thread.join()
        child = os.fork()
        if not child:
            os._exit(int(OpenLedgerFile(path).try_lock()))
        assert os.waitpid(child, 0)[1] == 0
        answer(ledger, 90)
