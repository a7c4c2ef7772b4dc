"""What the compiler of a torch version can see through."""

import pytest
import torch
from torch.torch_version import TorchVersion

sees_through_type_checks = pytest.mark.skipif(
    TorchVersion(torch.__version__) < (2, 7),
    reason="torch 2.6 can neither compile nor export all functions that the tests' run-time type checks wrap",
)
