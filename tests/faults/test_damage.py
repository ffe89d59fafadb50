"""Random damage to the checkpoints of a real run: always noticed, and never are wrong weights loaded."""

import random
import shutil

import pytest

from tests.faults.harness import committed
from tfdqn.errors import EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints
from tfdqn.runs.checkpoints import DATA, FOLDER, MANIFEST


def flip(path, dice, _):
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def truncate(path, dice, _):
    path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size)])


def lose_a_page(path, dice, _):
    """What a disk leaves that has lost a block: zeros, or part of something else."""
    data = bytearray(path.read_bytes())
    start = dice.randrange(len(data))
    size = min(4096, len(data) - start)
    data[start : start + size] = dice.choice((bytes(size), dice.randbytes(size)))
    path.write_bytes(data)


def swap_two_pages(path, dice, _):
    data = bytearray(path.read_bytes())
    a, b = (dice.randrange(len(data) // 512) * 512 for _ in range(2))
    data[a : a + 512], data[b : b + 512] = data[b : b + 512], data[a : a + 512]
    path.write_bytes(data)


def exchange(path, _, other):
    path.write_bytes((other / path.name).read_bytes())


def remove(path, *_):
    path.unlink()


def grow(path, dice, _):
    path.write_bytes(path.read_bytes() + dice.randbytes(dice.randrange(1, 4096)))


DAMAGES = (flip, flip, flip, truncate, truncate, lose_a_page, swap_two_pages, exchange, remove, grow)


@pytest.mark.parametrize("trials", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_damage_is_noticed_and_the_checkpoint_before_is_loaded(unbroken, tmp_path, trials):
    dice, counts, refused = random.Random(trials), {}, 0
    newer, older = committed(unbroken)
    whole = {
        name: {f: (unbroken / FOLDER / name / f).read_bytes() for f in (DATA, MANIFEST)} for name in (newer, older)
    }
    done = 0
    while done < trials:
        folder = tmp_path / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(unbroken / FOLDER, folder)
        hit = [newer, older] if dice.random() < 0.1 else [newer]  # sometimes both: then nothing may be loaded
        names = {}
        for name in hit:
            path, damage = folder / name / dice.choice((DATA, MANIFEST)), dice.choice(DAMAGES)
            damage(path, dice, unbroken / FOLDER / (older if name == newer else newer))
            names[path] = damage.__name__
        if any(path.exists() and path.read_bytes() == whole[path.parent.name][path.name] for path in names):
            continue  # zeros for zeros: no damage
        done += 1
        for name in names.values():
            counts[name] = counts.get(name, 0) + 1
        if len(hit) == 2:
            with pytest.raises(UserError, match="no whole checkpoint") as error:
                checkpoints.load_newest(tmp_path)
            assert error.value.exit_code == EXIT_REFUSED
            refused += 1
            continue
        checkpoint, (line,) = checkpoints.load_newest(tmp_path)
        assert checkpoint.path.name == older, names
        assert line.startswith(f"checkpoint {newer} is not whole: ") and f"damaged-{newer}" in line
        data = b"".join(
            checkpoint._array(file, entry, 0, entry["bytes"]).tobytes()
            for file in [open(checkpoint.path / DATA, "rb")]  # noqa: SIM115
            for entry in checkpoint.manifest["tensors"]
        )
        assert data == whole[older][DATA]
    print(
        f"\ndamaged checkpoints of a real run: noticed {trials} of {trials}, wrong weights loaded 0, both damaged and "
        f"refused {refused}; {counts}"
    )
