"The losses of a fit are plain numbers when it has ended, so that fastai can draw them."
import pytest, torch
from imgstudy.core import seed_everything
from imgstudy.data.loaders import create_dls
from imgstudy.data.split import load_data
from imgstudy.study.create import create_run
from imgstudy.training.learner import _on_host, create_learner


@pytest.mark.parametrize('losses', [[], [.5], [torch.tensor(.5)], [.25, torch.tensor(.5), 1., torch.tensor(2.)]])
def test_only_tensors_are_replaced(losses):
    wanted = [float(x) for x in losses]
    _on_host(losses)
    assert losses == wanted and all(type(x) is float for x in losses)


def test_after_a_fit_no_loss_is_a_tensor():
    run = create_run(dataset='digits', model='lenet5', epochs=1, subset=200)
    seed_everything(0)
    learn = create_learner(run, create_dls(run, load_data(run)))
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert len(learn.recorder.losses) and all(type(x) is float for x in learn.recorder.losses)
