"""Run the training script several times in one process (imports take longer than training); `--` parts the runs."""

import itertools
import sys

import torch
from tiny_training import forget_accelerator

from train_video import main

if __name__ == "__main__":
    torch.distributed.destroy_process_group = lambda group=None: None  # the next run's processes are the same
    for is_separator, arguments in itertools.groupby(sys.argv[1:], lambda argument: argument == "--"):
        if not is_separator:
            forget_accelerator()
            sys.argv = ["train_video.py", *arguments]
            main()
