"""One unbroken run for all tests that break others."""

import pytest

from tests.faults.harness import start


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    process = start(folder)
    assert process.finish() == 0, process.errors
    return folder / "run"
