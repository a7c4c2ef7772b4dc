"""A launcher that starts too few processes is refused."""

import pytest

from selfdistill.commands.launch import refuse_lone_process

ACCELERATE = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    for name in (*ACCELERATE, "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_one_of_several_cpu_processes_is_refused_and_told_of_torchrun(monkeypatch):
    for name, value in ACCELERATE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="start all of them with: torchrun --nproc_per_node N -m selfdistill"):
        refuse_lone_process()


def test_a_process_that_knows_the_others_or_is_meant_to_be_alone_is_not(monkeypatch):
    refuse_lone_process()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # accelerate launch --cpu, one process
    refuse_lone_process()
    for name, value in {**ACCELERATE, "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    refuse_lone_process()
