"""Enters and leaves a group of processes: refuses a launch of several CPU processes by anything but torchrun."""

import os


def refuse_lone_process() -> None:
    """Raises `ValueError` where accelerate was asked for several CPU processes and started one.

    `accelerate launch --cpu --num_processes N` starts one process and leaves the others to MPI; to that one it says
    where N processes should meet, but not how many they are. Training would go on alone, with another batch size.
    """
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1")
    if on_cpu and "MASTER_PORT" in os.environ and "RANK" not in os.environ:
        raise ValueError(
            "accelerate launch --cpu starts only one of several processes; "
            "start all of them with: torchrun --nproc_per_node N -m selfdistill ..."
        )


def leave_processes() -> None:
    """Leaves the group of processes, if there is one. Loads torch."""
    from ..distributed import leave_group

    leave_group()
