"""What every data tool shares: one line for the user's mistakes, exit codes, and options that several have.

Exit codes: 0 done, 2 the user's mistake (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

USER_MISTAKE = 2
INTERRUPTED = 130


def run_tool(name: str, work: Callable[[], None], if_interrupted: str) -> int:
    """Does the work; returns the exit code. VIDEO_MIRAI_TRACEBACK=1 shows where a mistake was noticed."""
    try:
        work()
    except (ValueError, OSError) as error:
        if os.environ.get("VIDEO_MIRAI_TRACEBACK") == "1":
            raise
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {if_interrupted}", file=sys.stderr)
        return INTERRUPTED
    return 0


def check_list_options(options: argparse.Namespace) -> None:
    """ValueError where --processes, --timeout or --out of a tool that writes a manifest cannot be."""
    if options.processes < 1:
        raise ValueError(f"--processes must be at least 1, got {options.processes}.")
    if not options.timeout > 0:
        raise ValueError(f"--timeout must be more than 0 seconds, got {options.timeout:g}.")
    if options.out.suffix.lower() != ".jsonl" or options.out.is_dir():
        raise ValueError(f"--out {options.out}: a manifest is a file whose name ends in .jsonl.")


def check_device(name: str) -> None:
    """ValueError for a --device that this machine does not have."""
    import torch  # takes seconds; most tools need none

    try:
        torch.empty(0, device=torch.device(name))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
