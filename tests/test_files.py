"""What is written: all of it or nothing, in an order that outlasts a power loss, and what has no room waits."""

import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Timer

import pytest

from tests.whole_runs import SETTINGS
from tfdqn import config as configuration
from tfdqn import envs, files
from tfdqn.errors import UserError
from tfdqn.learners.dqn import building
from tfdqn.runs import checkpoints, locks, models, run_config, run_folder

CONFIG = configuration.resolve(SETTINGS)


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def order(monkeypatch):
    """What reaches the disk, in order: names of files and folders that are synced, made or renamed."""
    events, fsync, replace, rename, mkdir = [], os.fsync, os.replace, os.rename, os.mkdir

    def note_fsync(descriptor):
        events.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def note(name, function):
        def wrapper(source, *arguments, **options):
            events.append((name, Path(source).name))
            return function(source, *arguments, **options)

        return wrapper

    monkeypatch.setattr(os, "fsync", note_fsync)
    for name, function in (("rename", replace), ("rename", rename), ("mkdir", mkdir)):
        monkeypatch.setattr(os, function.__name__, note(name, function))
    return events


def test_a_file_is_on_the_disk_before_it_is_renamed_and_its_folder_after(tmp_path, order):
    files.write_atomically(tmp_path / "a.txt", lambda temporary: temporary.write_text("a"))
    assert order == [("fsync", ".a.part.txt"), ("rename", ".a.part.txt"), ("fsync", tmp_path.name)]


def test_models_and_settings_are_brought_to_the_disk_with_their_folders(tmp_path, order):
    run = tmp_path / "run"
    run.mkdir()
    learner = building.build_learner(CONFIG, envs.make_for(CONFIG))
    for name, write in (
        ("model.keras", lambda path: models.save_agent(learner, path)),
        ("final.keras", lambda path: models.save_player(learner, learner.online.get_weights(), path)),
        ("config.toml", lambda path: run_config.write_config(CONFIG, path.parent)),
    ):
        order.clear()
        write(run / name)
        part = files.partial(run / name).name
        assert order[-3:] == [("fsync", part), ("rename", part), ("fsync", "run")]


def test_new_folders_are_on_the_disk_with_all_above_them(tmp_path, order):
    run_folder.create(CONFIG, [tmp_path / "logs" / "more" / "run"])[1].close()
    made = [event for event in order if event[1] in ("logs", "more", "run") or event == ("fsync", tmp_path.name)]
    assert made == [
        *(("mkdir", "logs"), ("fsync", tmp_path.name), ("mkdir", "more"), ("fsync", "logs")),
        *(("mkdir", "run"), ("fsync", "more"), ("fsync", "run")),  # the last after config.toml was renamed
    ]


def test_checkpoints_folder_and_a_set_aside_one_are_on_the_disk(tmp_path, order):
    for updates in (1, 2):
        checkpoints.save(tmp_path, {}, {"updates": updates, "env_frames": 1})
    assert order[:2] == [("mkdir", checkpoints.FOLDER), ("fsync", tmp_path.name)]
    (tmp_path / checkpoints.FOLDER / "2" / checkpoints.MANIFEST).write_text("")
    order.clear()
    checkpoints.load_newest(tmp_path)
    assert order == [("rename", "2"), ("fsync", checkpoints.FOLDER)]


class Disk:
    """Writes that get no further than so many bytes in all."""

    def __init__(self, file, free):
        self._file, self.free = file, free

    def write(self, data):
        taken = min(len(data), self.free)
        if not taken:
            no_space()
        self.free -= taken
        return self._file.write(data[:taken])

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("free", [0, 1, 3])
def test_a_record_that_has_no_room_waits_whole(tmp_path, free):
    journal = files.Journal(tmp_path / "log")
    journal.add(b"one\n")
    journal.flush()
    journal._file = disk = Disk(journal._file, free)
    for record in (b"two\n", b"3\n", b"four\n"):
        journal.add(record)
        with pytest.raises(OSError, match="No space left") as error:
            journal.flush()
        assert error.value.filename == str(tmp_path / "log")
        assert (tmp_path / "log").read_bytes() == b"one\n"
    disk.free = 100
    journal.flush()
    journal.flush()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n3\nfour\n"
    journal.close()


def test_a_journal_whose_file_cannot_be_made_yet_waits(tmp_path):
    journal = files.Journal(tmp_path / "later" / "log")
    journal.add(b"one\n")
    with pytest.raises(FileNotFoundError):
        journal.flush()
    (tmp_path / "later").mkdir()
    journal.flush()
    assert (tmp_path / "later" / "log").read_bytes() == b"one\n"
    journal.close()


def test_runs_begun_at_once_take_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "20260101-000000")
    paths = run_folder.folders(CONFIG, tmp_path / "logs", None)  # all choose before any makes
    count = 24
    barrier = Barrier(count)

    def begin(_):
        barrier.wait()
        return run_folder.create(CONFIG, paths)

    with ThreadPoolExecutor(count) as pool:
        begun = list(pool.map(begin, range(count)))
    stem = "catch8__default__s3__20260101-000000"
    assert {path.name for path, _ in begun} == {stem, *(f"{stem}-{number}" for number in range(2, count + 1))}
    for path, lock in begun:
        assert run_config.read_config(path) == CONFIG
        lock.close()


def test_a_name_that_the_user_chose_is_never_changed(tmp_path):
    first = run_folder.folders(CONFIG, tmp_path, "mine")
    second = run_folder.folders(CONFIG, tmp_path, "mine")
    run_folder.create(CONFIG, first)[1].close()
    with pytest.raises(UserError, match=r"--run-name mine: .* exists already; choose another name"):
        run_folder.create(CONFIG, second)
    with pytest.raises(UserError, match=r"--run-name mine: .* exists already; choose another name"):
        run_folder.folders(CONFIG, tmp_path, "mine")


@pytest.mark.parametrize(("module", "where"), [(locks, "lock"), (run_config, "write_config")])
def test_a_folder_that_cannot_be_filled_is_not_left(tmp_path, monkeypatch, module, where):
    monkeypatch.setattr(module, where, no_space)
    with pytest.raises(OSError, match="No space left"):
        run_folder.create(CONFIG, [tmp_path / "run"])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_keep_a_run_from_being_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", no_space)
    held = locks.lock(tmp_path)
    with pytest.raises(UserError, match="trains in it"):
        locks.lock(tmp_path)
    held.close()


def test_looking_whether_a_run_is_locked_is_in_nobodys_way(tmp_path):
    """Nor does it take a lock for another's whose file has the same number on another disk."""
    assert not locks.is_locked(tmp_path) and not list(tmp_path.iterdir())
    locks.lock(tmp_path).close()
    looking = os.fdopen(os.open(tmp_path / locks.LOCK_FILE, os.O_RDONLY))
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `is_locked` does, but for longer
    assert not locks.is_locked(tmp_path)
    give_back = Timer(3 * locks.LOOK_SECONDS, looking.close)
    give_back.start()
    with locks.lock(tmp_path):
        assert locks.is_locked(tmp_path)
    give_back.join()
    assert not locks.is_locked(tmp_path)
