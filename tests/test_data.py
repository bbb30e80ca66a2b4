"Real data sets and other people's folders, through the whole study."
import os, shutil
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from imgstudy.core import StudyError
from imgstudy.data import load_data
from imgstudy import figures
from imgstudy.datasets import find_dataset, list_images, unpack
from imgstudy.records import read_record
from imgstudy.train import create_run, train


def write_images(root, classes, n, seed=0, make=lambda a: Image.fromarray(a)):
    "Noise of a brightness that depends on the class: trivially learnt."
    rng = np.random.default_rng(seed)
    for i, c in enumerate(classes):
        (root/c).mkdir(parents=True, exist_ok=True)
        for j in range(n):
            make((rng.integers(0, 60, (20, 24, 3)) + 60*i).astype(np.uint8)).save(root/c/f'{j}.png')
    return root


def test_a_folder_of_your_own(tmp_path, runs_dir):
    "All kinds of images, two broken files among 300, names with spaces and accents: trained, tested, and said in the record."
    root = write_images(tmp_path/'my photos', ['grün', 'a b', 'c'], 100)
    Image.open(root/'c/0.png').convert('CMYK').save(root/'c/cmyk.jpg')
    Image.open(root/'c/1.png').convert('L').save(root/'c/grey.png')
    Image.open(root/'c/2.png').convert('RGBA').save(root/'c/alpha.png')
    (root/'c/3.png').write_bytes((root/'c/4.png').read_bytes()[:300])
    (root/'c/notes.txt').write_text('not an image')
    record = train(create_run(dataset=f'folder:{root}', model='lenet5', epochs=8, size=32))
    assert record.metrics['accuracy'] > 0.9
    said = read_record(record.path).info['data']
    assert said['skipped']['n'] == 2 and {f['path'] for f in said['skipped']['files']} == {'c/3.png', 'c/notes.txt'}
    assert said['classes'] == ['a b', 'c', 'grün']


@pytest.mark.parametrize('layout, message', [
    ({}, 'There are no class folders'),
    ({'a': 5}, 'There is only one class'),
    ({'a': 5, 'b': 0}, "The class folder 'b'"),
    ({'a': 5, 'b': 2}, "The class 'b' has only 2 images"),
    ({'train/a': 5, 'train/b': 5, 'test/a': 5, 'test/c': 5}, "The class 'c' is in the test folder but not in the train folder"),
])
def test_folders_that_cannot_work(layout, message, tmp_path, runs_dir):
    root = tmp_path/'photos'
    root.mkdir()
    for name, n in layout.items():
        (root/name).mkdir(parents=True)
        write_images((root/name).parent, [Path(name).name], n)
    with pytest.raises(StudyError, match=message): load_data(create_run(dataset=f'folder:{root}', model='lenet5', size=32))


def test_a_class_without_one_good_image(tmp_path):
    root = write_images(tmp_path/'photos', 'ab', 150)
    (root/'c').mkdir()
    (root/'c/broken.png').write_bytes(b'nothing')
    with pytest.raises(StudyError, match="The class 'c' has no readable images"):
        load_data(create_run(dataset=f'folder:{root}', model='lenet5', size=32))


def test_no_data_and_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path))
    monkeypatch.setattr('imgstudy.datasets.untar_data', lambda url: (_ for _ in ()).throw(OSError('no network')))
    with pytest.raises(StudyError, match='Put the folder cifar10/'): find_dataset('cifar10')


@pytest.mark.data
def test_cifar10_leaves_the_data_root_alone(runs_dir):
    "The real images, unpacked if they come as an archive; the data root is not written to."
    listing = lambda: sorted((str(p), p.stat().st_mtime_ns) for p in Path(os.environ['IMGSTUDY_DATA']).rglob('*'))
    before = listing()
    record = train(create_run(dataset='cifar10', model='lenet5', epochs=1, subset=2000))
    assert record.info['data']['counts'] == dict(train=2000, valid=10000, test=10000)
    assert 0.2 < record.metrics['accuracy'] < 0.6
    assert listing() == before, 'nothing may be written under the data root'


@pytest.mark.slow
@pytest.mark.data
def test_lenet_on_cifar10_reaches_half_in_five_epochs(runs_dir):
    assert train(create_run(dataset='cifar10', model='lenet5', epochs=5)).metrics['accuracy'] >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize('model', ['lenet5', 'convnext'])
def test_digits_reach_97(model, runs_dir):
    from imgstudy.runs import seed_runs
    accuracies = [train(r).metrics['accuracy'] for r in seed_runs(create_run(dataset='digits', model=model), 3)]
    assert np.mean(accuracies) >= 0.97


def test_hidden_folders_are_passed_over(tmp_path):
    "Thumbnails and checkpoints are copies: on both sides of a split they would flatter the test."
    root = write_images(tmp_path/'photos', 'ab', 5)
    for hidden in ('.ipynb_checkpoints', '@eaDir', '__MACOSX'): write_images(root/'a', [hidden], 3)
    assert len(list_images(root)) == 10


def test_an_archive_wrapped_in_folders(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    write_images(tmp_path/'src/download/photos', 'ab', 5)
    (tmp_path/'src/README.txt').write_text('beside the folder')
    archive = shutil.make_archive(str(tmp_path/'photos'), 'zip', tmp_path/'src')
    assert len(list_images(unpack(archive, 'photos'))) == 10


def test_class_names_that_look_like_mathematics(tmp_path, runs_dir):
    "matplotlib would read $...$ as a formula, and fail on this one."
    root = write_images(tmp_path/'photos', ['$^$', 'a$_$b', '<b>'], 10)
    run = create_run(dataset=f'folder:{root}', model='lenet5', epochs=1, size=32)
    data = load_data(run)
    record = train(run, data)
    for axes in (figures.plot_counts(data), figures.plot_confusion([record]), figures.plot_classwise(record)): axes.figure.canvas.draw()
    figures.plot_mistakes(record, data).canvas.draw()
