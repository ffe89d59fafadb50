"""What all tests that break runs share: the process that starts them, and one run that nothing breaks."""

import pytest

from tests.faults.harness import start
from tests.faults.nursery import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    # Compiled programs are kept between processes, for most of a resumed one's time would go into making the same ones
    # again; one thread each, for spinning threads slow each other down on a busy machine.
    cache = tmp_path_factory.mktemp("compiled")
    nursery = Nursery({"TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={cache}", "TF_NUM_INTRAOP_THREADS": "1"})
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory, nursery):
    folder = tmp_path_factory.mktemp("unbroken")
    process = start(folder, nursery=nursery)
    assert process.finish() == 0, process.errors
    return folder / "run"
