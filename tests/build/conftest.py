"""What tests of building share."""

import pytest

from selfdistill.build import automatic
from selfdistill.build import evidence as module


@pytest.fixture
def evidence(monkeypatch):
    """Has the runs of a test find these entries."""

    def find(*entries):
        for reader in (automatic, module):
            monkeypatch.setattr(reader, "read_evidence", lambda: entries)

    return find
