"""The worker in which PyTorch lives: see processes.py. Contenders are kept from round to round."""

import functools
import os

import torch
import torchvision

from peers import torch_epoch, torch_layers, torch_parity
from peers.processes import serve
from peers.torch_step import TorchStep

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
step_of = functools.lru_cache(maxsize=None)(TorchStep)
epochs_of = functools.lru_cache(maxsize=None)(torch_epoch.TorchEpochs)


def versions():
    onednn = next(line.strip(" -") for line in torch.__config__.show().splitlines()
                  if "MKL-DNN" in line or "oneDNN" in line)
    return {"PyTorch": torch.__version__, "torchvision": torchvision.__version__,
            "oneDNN": onednn, "capability": torch.backends.cpu.get_cpu_capability()}


def seconds(steps, **contender):
    return step_of(**contender).seconds(steps)


def first_step(**contender):
    TorchStep(**contender).step()
    return True


def forget():
    step_of.cache_clear()
    epochs_of.cache_clear()
    return True


serve({"versions": versions, "seconds": seconds, "first_step": first_step, "forget": forget,
       "parity_make": torch_parity.make, "parity_moco": torch_parity.of_moco,
       "parity_torch": torch_parity.of_torch, "layer": torch_layers.layer,
       "product": torch_layers.product,
       "epoch": lambda **contender: epochs_of(**contender).run()})
