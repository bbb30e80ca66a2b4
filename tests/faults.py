"""Trainings of seconds that are made to have a fault, for the tests of the checks and of `diagnose`.

All is trained on scikit-learn's digits or on generated images."""
from dataclasses import replace

import numpy as np
import pytest
from imgstudy.data.split import load_data
from imgstudy.records.record import read_record
from imgstudy.report.diagnose import diagnose
from imgstudy.study.create import create_run
from imgstudy.training.train import train
from PIL import Image
from PIL.PngImagePlugin import PngInfo

small = dict(dataset='digits', model='lenet5', size=16, augment='none', precision='fp32', bs=25, subset=200)
images = dict(subset=None, bs=16) # in place of those of `small`, for generated images


@pytest.fixture(scope='module')
def root(tmp_path_factory): return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def trained(root):
    "Train a run of digits on few images, with a hundred validation and test images; no training twice."
    known, parts = {}, {}

    def data_of(run):
        if run.subset not in parts:
            data = load_data(run)
            few = data.items[data.items.split != 'train'].sample(frac=1, random_state=0).groupby('split').head(100)
            kept = (data.items.split == 'train') | data.items.index.isin(few.index)
            parts[run.subset] = replace(data, items=data.items[kept].reset_index(drop=True))
        return parts[run.subset]

    def trained(**params):
        run = create_run(**{**small, **params})
        if run not in known:
            data = data_of(run) if run.dataset == 'digits' else None
            known[run] = read_record(train(run, data, root).path)
        return known[run]
    return trained


@pytest.fixture(scope='module')
def healthy(trained): return trained(subset=600, epochs=10, lr=5e-3)


def errors(record, **given): # names of the checks that find an error
    table = diagnose(record, **given)
    return set(table.check[table.severity == 'error'])


def all_found(record, **given): return set(diagnose(record, **given).check)


def noise(root, n=40, change=lambda rng: rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)):
    "A folder with `n` training images in each of two classes and nothing to learn."
    rng = np.random.default_rng(0)
    for split, k in (('train', n), ('test', n//2)):
        for c in 'ab':
            (root/split/c).mkdir(parents=True)
            for i in range(k):
                mark = PngInfo()
                mark.add_text('name', f'{split}{c}{i}') # other bytes, whatever the pixels are
                Image.fromarray(change(rng)).save(root/split/c/f'{i:03}.png', pnginfo=mark)
    return root
