"""What is freed stays with the process once it is told so."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
FAULTS = """
import resource, torch
from selfdistill.training.memory import keep_freed_memory
from selfdistill.training.profile import read_peak_memory, reset_peak_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.ones(10 * 2**20) for _ in range(4)]
    del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def settled():
    return min([faults() for _ in range(12)][4:])  # what is allocated in between may split what was freed

before = settled()
assert keep_freed_memory()
after, cpu = settled(), torch.device("cpu")
kept = read_peak_memory(cpu)
reset_peak_memory(cpu)
print(before, after, int(kept - read_peak_memory(cpu)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_memory_that_was_freed_needs_no_new_pages_until_it_is_returned():
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    before, after, returned = map(int, told.split())
    assert before > 1000 and after < before / 10
    assert returned > 100  # MiB, of 160
