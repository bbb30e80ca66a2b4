"What is fast here ends where plain fastai ends: the same network on the same images, as fastai's documentation would train it."
import numpy as np, pytest, torch
from fastai.vision.all import CrossEntropyLossFlat, ImageDataLoaders, Learner, Normalize, Resize, accuracy
from imgstudy.core import seed_everything
from imgstudy.data.split import load_data
from imgstudy.training.fit import fit
from imgstudy.training.learner import create_learner
from imgstudy.data.loaders import create_dls
from imgstudy.models.register import create_model
from imgstudy.records.metrics import t_interval
from imgstudy.study.create import create_run


def ours(run, data):
    seed_everything(run.seed)
    return fit(create_learner(run, create_dls(run, data)), run.recipe, lines=1).rows[-1]['valid_accuracy']


def plain(run, data):
    seed_everything(run.seed)
    items = data.items[data.items.split != 'test'].assign(is_valid=lambda d: d.split == 'valid')
    dls = ImageDataLoaders.from_df(items, path=data.root, fn_col='path', label_col='label', valid_col='is_valid', bs=run.recipe.bs,
                                   item_tfms=Resize(run.size, method='squish'), batch_tfms=Normalize.from_stats(data.mean, data.std), num_workers=2)
    learn = Learner(dls, create_model(run.model, dls.c, size=run.size), loss_func=CrossEntropyLossFlat(), metrics=accuracy, wd=run.recipe.wd)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(run.recipe.epochs, run.recipe.lr)
    return learn.recorder.values[-1][-1]


def assert_equal_within_noise(room, seeds, **params):
    "The 95 % interval of the paired differences holds 0, and their mean is at most `room`."
    runs = [create_run(augment='none', opt='adamw', schedule='one_cycle', seed=s, **params) for s in range(seeds)]
    data = load_data(runs[0])
    gains = np.array([ours(r, data) - plain(r, data) for r in runs])
    mean, low, high = t_interval(gains)
    assert low <= 0 <= high and abs(mean) < room, gains


def test_on_digits(): assert_equal_within_noise(.02, 3, dataset='digits', model='lenet5', epochs=4, lr=3e-3, wd=.01, bs=32)


@pytest.mark.slow
@pytest.mark.data
def test_on_cifar10(): assert_equal_within_noise(.02, 3, dataset='cifar10', model='cnn3', epochs=3, lr=1e-3, wd=.01, bs=64, subset=10_000)
