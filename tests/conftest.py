"""One thread: on a busy machine two threads made these tests 7 to 40 times slower than one."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
