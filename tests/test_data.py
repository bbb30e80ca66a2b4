"Real data sets and other people's folders, through the whole study."
import io, os, pickle, shutil, socket, struct, tarfile, time
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from imgstudy.core import StudyError
from imgstudy.data.split import load_data
from imgstudy.report import plots
from imgstudy.data.datasets import datasets, find_dataset, find_images, list_images, unpack
from imgstudy.records.record import read_record
from imgstudy.training.train import train
from imgstudy.study.create import create_run


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
    monkeypatch.setattr('imgstudy.data.datasets._ask_fastai', lambda spec: (_ for _ in ()).throw(OSError('no network')))
    with pytest.raises(StudyError, match='Put the folder cifar10/'): find_dataset('cifar10')


@pytest.mark.parametrize('md5', [None, '0'*32])
def test_a_network_that_never_answers(md5, tmp_path, monkeypatch):
    "A socket that accepts and says nothing, as behind some firewalls."
    for var in ('IMGSTUDY_DATA', 'IMGSTUDY_CACHE'): monkeypatch.setenv(var, str(tmp_path/var))
    monkeypatch.setattr('imgstudy.data.datasets.fastai_path', lambda folder: tmp_path/folder)
    monkeypatch.setattr('imgstudy.data.datasets._patience', 0.5)
    with socket.create_server(('127.0.0.1', 0)) as silent:
        url = f'http://127.0.0.1:{silent.getsockname()[1]}/cifar10.tgz'
        monkeypatch.setitem(datasets, 'cifar10', replace(datasets['cifar10'], url=url, md5=md5))
        with pytest.raises(StudyError, match='timed out'): find_dataset('cifar10')


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
    for axes in (plots.plot_counts(data), plots.plot_confusion([record]), plots.plot_classwise(record)): axes.figure.canvas.draw()
    plots.plot_confident_errors(record, data).canvas.draw()


# Data sets in the layouts in which their home pages ship them, each built small in the real format.

@pytest.fixture
def root(tmp_path, monkeypatch):
    "An empty data root and an empty cache."
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path/'root'))
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    (tmp_path/'root').mkdir()
    return tmp_path/'root'


class Python2Pickler(pickle._Pickler):
    "Writes what Python 2 and an old NumPy wrote: every string as bytes, protocol 2."
    dispatch = dict(pickle._Pickler.dispatch)
    def save_text(self, s):
        data = s.encode('latin1') if isinstance(s, str) else s
        self.write(b'T' + struct.pack('<i', len(data)) + data)
        self.memoize(s)
    dispatch[str] = dispatch[bytes] = save_text


def python2_pickle(path, value):
    buf = io.BytesIO()
    Python2Pickler(buf, protocol=2).dump(value)
    path.write_bytes(buf.getvalue().replace(b'cnumpy._core.multiarray', b'cnumpy.core.multiarray'))


cifar10_names = 'airplane automobile bird cat deer dog frog horse ship truck'.split()
cifar100_names = [f'class_{i}' for i in range(100)]
stl10_names = 'airplane bird car cat deer dog horse monkey ship truck'.split()
noise = lambda *shape: np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


def cifar10_python(folder):
    "Twenty images in each of the five training files and in the test file; the pixels of all of them and their labels."
    folder.mkdir()
    python2_pickle(folder/'batches.meta', dict(num_cases_per_batch=20, label_names=cifar10_names, num_vis=3072))
    x, y = noise(6, 20, 3072), [(3*i) % 10 for i in range(20)]
    for name, rows in zip([*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch'], x):
        python2_pickle(folder/name, dict(batch_label=name, labels=y, data=rows, filenames=['x.png']*20))
    return x, y


def cifar10_binary(folder):
    folder.mkdir()
    (folder/'batches.meta.txt').write_text('\n'.join(cifar10_names) + '\n\n')
    x, y = noise(6, 20, 3072), [(3*i) % 10 for i in range(20)]
    for name, rows in zip([*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch'], x):
        np.column_stack([np.array(y, np.uint8), rows]).tofile(folder/f'{name}.bin')
    return x, y


def as_table(root, items, split):
    "Pixels and labels of a split in the order of the file numbers."
    rows = sorted(items[items.split == split].itertuples(), key=lambda r: Path(r.path).stem)
    return np.stack([np.asarray(Image.open(root/r.path)) for r in rows]), [r.label for r in rows]


def packed(folder, archive):
    "Pack `folder` as its home page does, and leave only the archive."
    with tarfile.open(archive, 'w:gz') as t: t.add(folder, folder.name)
    shutil.rmtree(folder)


@pytest.mark.parametrize('build, folder, archive', [
    (cifar10_python, 'cifar-10-batches-py', 'cifar-10-python'), (cifar10_binary, 'cifar-10-batches-bin', 'cifar-10-binary')])
@pytest.mark.parametrize('how', ['folder', 'archive', 'inside'])
def test_cifar10_as_shipped(build, folder, archive, how, root):
    x, y = build(root/folder)
    if how == 'archive': packed(root/folder, root/f'{archive}.tar.gz')
    if how == 'inside': (root/'cifar10').mkdir(), (root/folder).rename(root/'cifar10'/folder)
    before = sorted(root.rglob('*'))
    pixels, labels = as_table(*find_images('cifar10'), 'test')
    assert (pixels == x[5].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).all()
    assert labels == [cifar10_names[i] for i in y]
    pixels, labels = as_table(*find_images('cifar10'), 'train')
    assert (pixels == x[:5].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).all() and labels == [cifar10_names[i] for i in y]*5
    assert sorted(root.rglob('*')) == before, 'nothing may be written under the data root'


def test_torchvision_reads_the_same_pickles(root, monkeypatch):
    import torchvision
    monkeypatch.setattr('torchvision.datasets.cifar.check_integrity', lambda *args: True)
    cifar10_python(root/'cifar-10-batches-py')
    pixels, labels = as_table(*find_images('cifar10'), 'train')
    oracle = torchvision.datasets.CIFAR10(root)
    assert (oracle.data == pixels).all() and [oracle.classes[i] for i in oracle.targets] == labels


@pytest.mark.parametrize('version', ['python', 'binary'])
def test_cifar100_as_shipped_has_fine_labels(version, root):
    folder = root/f'cifar-100-{version}'
    folder.mkdir()
    x, fine, coarse = noise(200, 3072), [*range(100)]*2, [i//5 for i in range(100)]*2
    for split in ('train', 'test'):
        if version == 'python': python2_pickle(folder/split, dict(data=x, fine_labels=fine, coarse_labels=coarse, batch_label=split))
        else: np.column_stack([np.array(coarse, np.uint8), np.array(fine, np.uint8), x]).tofile(folder/f'{split}.bin')
    if version == 'python': python2_pickle(folder/'meta', dict(fine_label_names=cifar100_names, coarse_label_names=['c']*20))
    else: (folder/'fine_label_names.txt').write_text('\n'.join(cifar100_names) + '\n')
    pixels, labels = as_table(*find_images('cifar100'), 'test')
    assert labels == cifar100_names*2
    assert (pixels == x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).all()


def test_fastai_s_cifar100_has_coarse_folders(root):
    for split in ('train', 'test'):
        for coarse, fine in [('fish', ['shark', 'trout']), ('trees', ['oak'])]: write_images(root/'cifar100'/split/coarse, fine, 2)
    assert set(find_images('cifar100')[1].label) == {'shark', 'trout', 'oak'}


class Hostile:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('protocol', range(6))
def test_a_hostile_pickle_is_refused_and_not_run(protocol, root, tmp_path):
    cifar10_python(root/'cifar-10-batches-py')
    (root/'cifar-10-batches-py/test_batch').write_bytes(pickle.dumps(dict(data=Hostile(tmp_path/'taken')), protocol=protocol))
    with pytest.raises(StudyError, match='which no CIFAR file needs; it was not run'): find_images('cifar10')
    assert not (tmp_path/'taken').exists()
    assert not list((tmp_path/'cache/datasets').glob('*png*')), 'nothing of a refused set may be kept'


def test_a_hostile_class_name_stays_in_the_cache(root, tmp_path):
    cifar10_binary(root/'cifar-10-batches-bin')
    (root/'cifar-10-batches-bin/batches.meta.txt').write_text('\n'.join(['../../../taken', *cifar10_names[1:]]))
    with pytest.raises(StudyError, match='cannot be the name of a class folder'): find_images('cifar10')
    assert not list(tmp_path.rglob('taken'))


@pytest.mark.parametrize('harm, message', [
    (lambda f: (f/'data_batch_3').unlink(), 'has no file data_batch_3'),
    (lambda f: (f/'data_batch_3').write_bytes((f/'data_batch_3').read_bytes()[:999]), 'cannot be read .* download or unpack it again'),
    (lambda f: python2_pickle(f/'batches.meta', dict(label_names=['cat'])), 'cannot be read .* download or unpack it again'),
    (lambda f: python2_pickle(f/'test_batch', dict(data=noise(3, 3072), labels=[1, 2])), 'labels do not match images'),
    (lambda f: python2_pickle(f/'test_batch', dict(data=noise(3, 3072).astype('f8'), labels=[1, 2, 3])), 'not u1'),
    (lambda f: python2_pickle(f/'test_batch', dict(labels=[1])), 'cannot be read .* download or unpack it again'),
])
def test_a_broken_copy_is_named_and_not_kept(harm, message, root, tmp_path):
    cifar10_python(root/'cifar-10-batches-py')
    harm(root/'cifar-10-batches-py')
    with pytest.raises(StudyError, match=message): find_images('cifar10')
    assert not list((tmp_path/'cache').rglob('*.png'))


def stl10(folder, n=20):
    folder.mkdir()
    (folder/'class_names.txt').write_text('\n'.join(stl10_names) + '\n')
    for split in ('train', 'test'):
        noise(n, 3, 96, 96).tofile(folder/f'{split}_X.bin')
        np.array([1 + i % 10 for i in range(n)], np.uint8).tofile(folder/f'{split}_y.bin')


@pytest.mark.parametrize('archive', [False, True])
def test_stl10_and_stl5_as_shipped(archive, root, tmp_path, monkeypatch):
    import torchvision
    monkeypatch.setattr('torchvision.datasets.stl10.check_integrity', lambda *args: True)
    stl10(root/'stl10_binary')
    oracle = torchvision.datasets.STL10(root, 'test')
    if archive: packed(root/'stl10_binary', root/'stl10_binary.tar.gz')
    pixels, labels = as_table(*find_images('stl10'), 'test')
    assert all((np.asarray(im) == a).all() and oracle.classes[y] == label for (im, y), a, label in zip(oracle, pixels, labels))
    assert len(labels) == len(oracle) == 20
    five = find_images('stl5')[1]
    assert five.groupby('label').size().to_dict() == dict.fromkeys(['car', 'deer', 'horse', 'monkey', 'truck'], 4)


def test_the_stand_in_is_drawn_once_and_called_so(root):
    for split, n in dict(train=6, test=3).items(): write_images(root/'cifar10'/split, cifar10_names, n)
    one, two = find_images('stl5_standin')[1], find_images('stl5_standin')[1]
    assert one.equals(two) and set(one.label) == {'automobile', 'deer', 'horse', 'truck', 'cat'}
    assert 'A stand-in, not STL-5' in datasets['stl5_standin'].note and datasets['stl5_standin'].stand_in_for == 'stl5'


def jpegs(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names): Image.fromarray(np.full((12, 10, 3), 9*i % 256, np.uint8)).save(folder/name)


def test_kaggle_s_cats_and_dogs(root):
    jpegs(root/'dogs-vs-cats/train', [f'{c}.{i}.jpg' for c in ('cat', 'dog') for i in range(5)])
    jpegs(root/'dogs-vs-cats/test1', ['1.jpg', '2.jpg'])
    items = find_images('cats_vs_dogs')[1]
    assert [*zip(items.path, items.label)] == [(f'{c}.{i}.jpg', c) for c in ('cat', 'dog') for i in range(5)]
    assert set(items.split) == {''}


def test_kaggle_s_archive_holds_archives(root, tmp_path):
    jpegs(tmp_path/'src/train', [f'{c}.{i}.jpg' for c in ('cat', 'dog') for i in range(5)])
    (tmp_path/'outer').mkdir()
    for name in ('train', 'test1'): shutil.make_archive(str(tmp_path/'outer'/name), 'zip', tmp_path/'src')
    shutil.make_archive(str(root/'dogs-vs-cats'), 'zip', tmp_path/'outer')
    assert find_images('cats_vs_dogs')[1].label.value_counts().to_dict() == dict(cat=5, dog=5)


@pytest.mark.parametrize('how', ['PetImages', 'cats_vs_dogs/PetImages', 'archive', 'cats_vs_dogs'])
def test_microsoft_s_cats_and_dogs_with_broken_files(how, root, tmp_path, runs_dir):
    where = tmp_path/'src/PetImages' if how == 'archive' else root/how
    for c in ('Cat', 'Dog'):
        jpegs(where/c, [f'{i}.jpg' for i in range(100)])
        (where/c/'Thumbs.db').write_bytes(b'of a file manager')
    (where/'Cat/66.jpg').write_bytes(b'') # as in the original
    if how == 'archive':
        (tmp_path/'src/readme[1].txt').write_text('beside the folder')
        shutil.make_archive(str(root/'kagglecatsanddogs_5340'), 'zip', tmp_path/'src')
    data = load_data(create_run(dataset='cats_vs_dogs', model='lenet5', size=32))
    assert (data.classes, len(data.items), [s['path'] for s in data.skipped]) == (['cat', 'dog'], 199, ['Cat/66.jpg'])


def stanford(folder, n_breeds=22):
    "Breeds with 3, 4, 5, ... images; the lists name all but the first image of each."
    from scipy.io import savemat
    breeds = [f'n{2085620 + i:08}-Breed_{i:02}' for i in range(n_breeds)]
    for i, b in enumerate(breeds): jpegs(folder/'Images'/b, [f'{b[:9]}_{j}.jpg' for j in range(3 + i)])
    paths = {s: [f'{b}/{b[:9]}_{j}.jpg' for i, b in enumerate(breeds) for j in range(1, 3 + i) if (j == 1) == (s == 'test')]
             for s in ('train', 'test')}
    for s, ps in paths.items(): # as shipped: a column of cells, beside labels and the names of annotations
        cells = np.array(ps, dtype=object)[:, None]
        savemat(folder/f'{s}_list.mat', dict(file_list=cells, annotation_list=cells, labels=np.ones((len(ps), 1))))
    return paths


@pytest.mark.parametrize('how', ['unpacked', 'tar'])
def test_stanford_dogs_as_shipped(how, root, tmp_path):
    folder = root/'stanford_dogs'
    paths = stanford(folder)
    if how == 'tar':
        with tarfile.open(folder/'images.tar', 'w') as t: t.add(folder/'Images', 'Images')
        with tarfile.open(folder/'lists.tar', 'w') as t:
            for f in sorted(folder.glob('*.mat')): t.add(f, f.name), f.unlink()
        shutil.rmtree(folder/'Images')
    found, items = find_images('stanford_dogs')
    assert {s: sorted(items.path[items.split == s]) for s in paths} == {s: sorted(ps) for s, ps in paths.items()}
    assert set(items.label) == {f'Breed {i:02}' for i in range(22)}
    assert all((found/p).is_file() for p in items.path)
    assert set(find_images('stanford_dogs20')[1].label) == {f'Breed {i:02}' for i in range(2, 22)}


def test_stanford_dogs_without_lists_is_split_here(root, runs_dir):
    stanford(root/'stanford_dogs')
    for f in (root/'stanford_dogs').glob('*.mat'): f.unlink()
    data = load_data(create_run(dataset='stanford_dogs20', model='lenet5', size=32))
    assert len(data.classes) == 20 and data.counts().to_numpy().min() >= 1
    by_folders = fingerprint_of(root, root/'stanford_dogs/Images')
    assert data.fingerprint == by_folders, 'class folders and the shipped layout are the same images'


def fingerprint_of(root, images):
    "The fingerprint of the twenty breeds if they lie as class folders under the data root."
    images.rename(root/'moved')
    shutil.rmtree(root/'stanford_dogs')
    (root/'moved').rename(root/'stanford_dogs')
    return load_data(create_run(dataset='stanford_dogs20', model='lenet5', size=32)).fingerprint


def test_only_the_selected_files_are_decoded(root, runs_dir, monkeypatch):
    for split in ('train', 'test'): write_images(root/'cifar10'/split, cifar10_names, 8)
    (root/'cifar10/train/frog/0.png').write_bytes(b'broken, and not of this part')
    seen = []
    from imgstudy.data.images import check_images
    monkeypatch.setattr('imgstudy.data.split.check_images', lambda root, paths: seen.extend(paths) or check_images(root, paths))
    data = load_data(create_run(dataset='stl5_standin', model='lenet5', size=32))
    assert len(seen) == len(data.items) == 80 and data.skipped == []


def test_imagenette_as_shipped(root):
    for split in ('train', 'val'):
        for synset in ('n01440764', 'n03394916'): jpegs(root/'imagenette2-160'/split/synset, ['a.JPEG', 'b.JPEG'])
    items = find_images('imagenette')[1]
    assert items.groupby(['split', 'label']).size().to_dict() == {
        (s, c): 2 for s in ('train', 'test') for c in ('tench', 'French horn')}


@pytest.mark.parametrize('how', ['unpacked', 'tar'])
def test_pets_as_shipped(how, root):
    folder = root/'oxford-iiit-pet'
    breeds = ['Abyssinian', 'american_pit_bull_terrier']
    jpegs(folder/'images', [f'{b}_{i}.jpg' for b in breeds for i in (1, 2, 10)])
    (folder/'images/Abyssinian_1.mat').write_bytes(b'left there by the authors')
    (folder/'annotations').mkdir()
    for name, numbers in dict(trainval=(1, 2), test=(10,)).items():
        lines = [f'{b}_{i} {k} 1 1' for k, b in enumerate(breeds, 1) for i in numbers]
        (folder/f'annotations/{name}.txt').write_text('\n'.join(lines) + '\n')
    if how == 'tar':
        for part in ('images', 'annotations'): packed(folder/part, folder/f'{part}.tar.gz')
    items = find_images('pets')[1]
    assert items.groupby(['split', 'label']).size().to_dict() == {
        (s, b.replace('_', ' ')): n for s, n in dict(train=2, test=1).items() for b in breeds}


named = [d.name for d in datasets.values() if not d.make and not d.parent]


@pytest.mark.parametrize('name', named)
def test_class_folders_and_archives_of_every_set(name, root, tmp_path):
    for split in ('train', 'test'): write_images(tmp_path/'src'/name/split, ['one', 'two'], 2)
    shutil.make_archive(str(root/name), 'xztar', tmp_path/'src')
    assert find_images(name)[1].groupby(['split', 'label']).size().tolist() == [2]*4
    write_images(root/name, ['one', 'two', 'three'], 2)
    items = find_images(name)[1]
    assert set(items.split) == {''} and set(items.label) == {'one', 'two', 'three'}


@pytest.mark.parametrize('name', [d.name for d in datasets.values() if d.parent != 'digits' and not d.make])
def test_missing_data_is_said_quickly(name, root, tmp_path, monkeypatch):
    "In one paragraph, with the folder's name and what to fetch; no network is spoken to."
    for var in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'): monkeypatch.setenv(var, 'http://127.0.0.1:9')
    monkeypatch.setattr('imgstudy.data.datasets.fastai_path', lambda folder: tmp_path/folder) # somebody may have the sets there
    start, spec = time.monotonic(), datasets[datasets[name].parent or name]
    with pytest.raises(StudyError, match=f'Put the folder {spec.name}/') as e: find_images(name)
    assert time.monotonic() - start < 20
    assert '\n' not in str(e.value) and spec.source in str(e.value) and spec.shipped in str(e.value)


def test_fingerprints_of_committed_records_still_hold(runs_dir):
    "Whoever repeats a record sees the same images."
    records = [read_record(p.parent) for p in (Path(__file__).parent.parent/'report/records').glob('digits-*/record.json')]
    assert records and {r.info['data']['fingerprint'] for r in records} == {
        load_data(create_run(dataset='digits', model='lenet5')).fingerprint}


@pytest.mark.data
def test_the_real_sets_that_are_here_can_be_loaded(runs_dir):
    here = [d for d in datasets.values() if not d.make and (Path(os.environ['IMGSTUDY_DATA'])/d.name).is_dir()]
    for spec in here:
        root, items = find_images(spec.name)
        assert items.label.nunique() <= spec.classes and (root/items.path.iloc[-1]).is_file()
