"""What every script shares: one line for the user's mistakes, exit codes, and the parser's conventions.

Exit codes: 0 done, 2 the user's mistake (one line on stderr), 1 anything else, 130 interrupted.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import torch

USER_MISTAKE = 2
INTERRUPTED = 130


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's main and exit; VIDEO_MIRAI_TRACEBACK=1 shows where a mistake was noticed."""
    try:
        main()
    except (ValueError, OSError) as error:
        if os.environ.get("VIDEO_MIRAI_TRACEBACK") == "1":
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {message}", file=sys.stderr)
        sys.exit(USER_MISTAKE)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(0)


def make_parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose --help ends with an example."""
    return argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """--config PATH [key=value ...], read back as `config` and `overrides`."""
    parser.add_argument("--config", required=required, metavar="PATH", help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the file's")


def parse_device(name: str) -> "torch.device":
    """A device that this machine has; ValueError for any other."""
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def log_to_stderr(*, is_main_process: bool = True) -> None:
    """Messages of the library on stderr; of the other processes only warnings."""
    logging.basicConfig(level=logging.INFO if is_main_process else logging.WARNING, format="%(message)s")
