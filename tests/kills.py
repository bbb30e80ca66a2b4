"A training that is killed between two epochs."
import pytest
from fastai.basics import Callback
from imgstudy.training.checkpoint import Checkpoint


class Killed(BaseException): pass


class Kill(Callback):
    order = 95  # after `Checkpoint`
    def __init__(self, epochs): self.epochs = epochs
    def after_epoch(self):
        if self.epoch + 1 == self.epochs: raise Killed


def kill_after(epochs, monkeypatch, train):
    "Call `train`, which is killed after so many epochs; each of them is in its checkpoint."
    with monkeypatch.context() as m:
        m.setattr(Checkpoint, 'every', 0)
        m.setattr('imgstudy.training.train.event_cbs', lambda *args, **kwargs: [Kill(epochs)])
        with pytest.raises(Killed): train()
