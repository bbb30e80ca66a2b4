"Kept pixels: several processes, kills, and real photographs."
import os, signal, subprocess, sys, time
import numpy as np, pytest
from PIL import Image
from imgstudy.data.split import load_data
from imgstudy.data.pixels import OpenImage, get_pixels, missing_rows
from imgstudy.runs import Run

program = '''
import sys
from imgstudy.data.split import load_data
from imgstudy.data.pixels import get_pixels
from imgstudy.runs import Run
data = load_data(Run(sys.argv[1], 'lenet5'))
print('ready', flush=True)
pixels = get_pixels(data, 96)
print(int(pixels.array()[pixels.rows(data.items.path)].sum()))
'''


@pytest.fixture
def photos(tmp_path, monkeypatch):
    "A folder of 400 pictures that take some time to open, with a cache of its own."
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    rng = np.random.default_rng(0)
    for c in 'ab':
        (tmp_path/'photos'/c).mkdir(parents=True)
        for i in range(200):
            small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            small.resize((640, 480)).save(tmp_path/'photos'/c/f'{i}.jpg')
    name = f'folder:{tmp_path}/photos'
    load_data(Run(name, 'lenet5')) # so that only the opening is left to do
    return name


def start(name): return subprocess.Popen([sys.executable, '-c', program, name], stdout=subprocess.PIPE, text=True)


def check(name):
    "Every row is what `OpenImage` gives."
    data, opened = load_data(Run(name, 'lenet5')), OpenImage(96)
    pixels = get_pixels(data, 96)
    kept = pixels.array()[pixels.rows(data.items.path)]
    assert all((a == np.asarray(opened(data.root/p))).all() for a, p in zip(kept, data.items.path))
    return int(kept.sum())


def test_several_processes_at_once(photos):
    said = [p.communicate()[0].split()[-1] for p in [start(photos) for _ in range(3)]]
    assert len(set(said)) == 1 and int(said[0]) == check(photos)


def test_killed_while_it_opens(photos, tmp_path):
    left = []
    for wait in (.3, .5, .7):
        process = start(photos)
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        folders = list((tmp_path/'cache/pixels').glob('[!.]*/sums.npy'))
        left.append((np.load(folders[0]) == 0).sum() if folders else 400)
    assert left[0] > 0, 'nothing was left to open: the kill came too late'
    check(photos)


@pytest.mark.data
def test_batches_of_real_photographs_equal_those_of_fastai():
    "The same order, labels and pixels as fastai's own DataLoader gives for the same DataBlock."
    from imgstudy.core import seed_everything
    from imgstudy.data.loaders import create_dls
    run = Run('cats_vs_dogs', 'lenet5', subset=200, size=64, augment='none')
    data = load_data(run)
    data.items = data.items.groupby('split', group_keys=False).head(200)
    def batches(**kwargs):
        seed_everything(3)
        dls = create_dls(run, data, **kwargs)
        return [b for _ in range(2) for b in dls.train]
    for (x, y), (px, py) in zip(batches(keep=False, num_workers=2), batches(), strict=True):
        assert (x == px).all() and (y == py).all()
