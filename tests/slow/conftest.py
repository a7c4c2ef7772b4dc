"""Slow tests go without run-time type checks, which the fast ones have: they would take much of the time."""

import pytest


@pytest.fixture(autouse=True)
def unchecked(untyped):
    pass
