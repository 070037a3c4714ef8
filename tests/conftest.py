"""One thread: on a busy machine two threads made these tests 7 to 40 times slower than one.

And Ctrl-C as in a terminal: a shell ignores it for what it starts in the background, and so do all processes below.
"""

import os
import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
