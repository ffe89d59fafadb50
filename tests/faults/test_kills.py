"""Hundreds of kills and stops of real runs; each chain of them must end bit-equal to a run that nothing broke."""

import pytest

from tests.faults.chain import Chain
from tests.faults.disk import small_disk

pytestmark = pytest.mark.slow

CHAINS = 10
# Breaks in each chain: over all chains 100 kills anywhere, 100 at a save, 20 stops, and checkpoints damaged between.
BREAKS = {"kill_anywhere": 10, "kill_in_a_save": 10, "stop": 2, "damage": 1}


@pytest.mark.parametrize("seed", range(CHAINS))
def test_a_run_broken_again_and_again_ends_like_the_unbroken_one(tmp_path, nursery, seed):
    with small_disk(tmp_path, megabytes=24) as disk:
        chain = Chain(disk or tmp_path, seed, nursery)
        breaks = [name for name, times in BREAKS.items() for _ in range(times)] + ["fill_the_disk"] * bool(disk)
        chain.dice.shuffle(breaks)
        for name in breaks:
            getattr(chain, name)()
        assert chain.end() == []
    print(f"\nchain {seed}: {chain}")


def test_a_run_whose_processes_import_and_compile_for_themselves_ends_like_the_unbroken_one(tmp_path):
    chain = Chain(tmp_path, "alone")
    for _ in range(8):
        chain.kill_anywhere()
        chain.kill_in_a_save()
    assert chain.end() == []
    print(f"\nchain of processes of their own: {chain}")
