"""One thread: on a busy machine two threads made these tests 7 to 40 times slower than one.

And Ctrl-C as in a terminal: a shell ignores it for what it starts in the background, and so do all processes below.
The examples of hypothesis are the same in every run; ``benchmarks/faults_laws.py`` looks for others.
"""

import os
import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("suite", derandomize=True, database=None)
settings.load_profile("suite")
