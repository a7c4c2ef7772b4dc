"""Runs that several tests compare others with."""

import pytest

from helpers.runs import recipe, train


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The method, the run and the result of FRSKD's short run from beginning to end; only to be read."""
    return train(recipe(tmp_path_factory.mktemp("whole")))
