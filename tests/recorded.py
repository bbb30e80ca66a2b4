"A stand-in for a CUDA graph: a step is recorded on the CPU, operation by operation, and done again on the same tensors."
import random
import numpy as np, torch
from contextlib import contextmanager
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from types import SimpleNamespace
from imgstudy.training import capture
from imgstudy.training.capture import CaptureFailed
from imgstudy.training.step import Step

# on a GPU, Python would have to know a value, or the shape of what comes out
waits = {'_local_scalar_dense', 'item', 'equal', 'is_nonzero', 'nonzero', 'masked_select', 'unique_dim', '_unique', '_unique2', 'bincount',
         'unique_consecutive', 'repeat_interleave'}
by_mask = {'index', 'index_put', 'index_put_', '_index_put_impl_'}


class Waits(RuntimeError): "An operation that would wait for the device."


def tensors(*values) -> list: return [t for t in tree_leaves(values) if isinstance(t, torch.Tensor)]


def places(ts) -> set: return {t.untyped_storage().data_ptr() for t in ts if t.numel()}


def would_wait(func, args) -> bool:
    "Whether an operation of PyTorch, with these arguments, waits for a GPU."
    name = func._schema.name.split('::')[1]
    return name in waits or name in by_mask and any(t.dtype in (torch.bool, torch.uint8) for t in tensors(args[1]))


class Recording(TorchDispatchMode):
    """Writes down the operations below autograd, of the forward pass and the backward pass, while it is entered; `replay` does them
    again. As in a CUDA graph, a number of Python is a constant, and a tensor is a place in memory: each replay reads and writes where
    the first pass did. Random numbers are drawn anew. What would wait for the device is refused; a copy to the CPU is not noticed here."""
    def __init__(self): super().__init__(); self.done = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if would_wait(func, args): raise Waits(f'{func} waits for the device')
        out = func(*args, **kwargs)
        given = places(tensors(args, kwargs))
        new = [places([t]) - given != set() for t in tensors(out)]
        if any(new) or func._schema.is_mutable or not new: self.done.append((func, args, kwargs, tensors(out), new)) # else a view
        return out
    def replay(self):
        "Do the operations again."
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            for func, args, kwargs, outs, new in self.done:
                again = tensors(func(*args, **kwargs))
                for there, value, fresh in zip(outs, again, new):
                    if fresh: there.copy_(value)


def record(step, stream) -> Recording:
    "In place of `Step.record`."
    drawn = lambda: (random.getstate(), np.random.get_state()[1].tolist()) # PyTorch's generator of the CPU is that of the device here
    recording, before, start = Recording(), drawn(), step.save()
    step.pos.zero_() # an epoch may be over
    try:
        with recording: step()
        if drawn() != before: raise CaptureFailed('it draws random numbers on the CPU')
    finally: step.restore(start) # a GPU only notes the operations
    return recording


@contextmanager
def aside(): yield SimpleNamespace(synchronize=lambda: None) # in place of a stream


def let_record(monkeypatch) -> list:
    "Let trainings record their steps, prove the recordings and replay them, as on a GPU; the list of recordings made."
    made = []
    monkeypatch.setenv('IMGSTUDY_CAPTURE', '')
    monkeypatch.setattr(capture, '_how', lambda device: 'graph')
    monkeypatch.setattr(capture, '_aside', aside)
    monkeypatch.setattr(Step, 'record', lambda step, stream: (made.append(record(step, stream)), made[-1])[1])
    return made
