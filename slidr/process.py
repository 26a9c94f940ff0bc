"""Which process this is, and whether another one still lives: what the holders of leases are named by."""

import os
import socket
from pathlib import Path

ENDED_STATES = ("Z", "X")  # of a process that has ended and is still listed


def holder() -> str:
    """This process: machine, number, and start, so that a number that is used again is not taken for it."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def has_ended(name: str) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    host, number, started = name.rsplit(":", 2)
    return host == socket.gethostname() and _started(int(number)) != started


def _started(number: int) -> str:
    """Start time of a process in clock ticks since the machine started; empty where there is none, 0 where it can't be told."""
    try:
        # After the command's name, which may hold anything: its state, and as the twentieth field its start.
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else "0"
    return "" if fields[0] in ENDED_STATES else fields[19]
