"The audit finds what was planted, and nothing else; its page holds together and cannot be written to by a file name."
import os, re, shutil
import numpy as np, pytest
from PIL import Image, ImageOps
from imgstudy.data import audit as au, duplicates
from imgstudy.core import StudyError
from imgstudy.data.split import load_data
from imgstudy.data.datasets import find_images
from imgstudy.study.create import create_run


def picture(seed, size=96):
    "Clouds of colour: smooth noise, different for every seed."
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    return rough.resize((size, size), Image.Resampling.BICUBIC)


def write(root, splits=('train', 'test'), classes='ab', n=12):
    "`n` different pictures in each class of each split."
    seed = 0
    for s in splits:
        for c in classes:
            (root/s/c).mkdir(parents=True)
            for i in range(n):
                picture(seed := seed + 1).save(root/s/c/f'{i:02}.png')
    return root


@pytest.fixture
def clean(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    return write(tmp_path/'photos')


def found(root, **kwargs):
    audit = au.audit_data(f'folder:{root}', **kwargs)
    return audit, {(p.kind, p.path_a, p.path_b, p.across, p.conflict, p.mirrored) for p in audit.pairs.itertuples()}


def test_nothing_is_found_where_nothing_is(clean):
    audit, pairs = found(clean)
    assert not pairs and not len(audit.unreadable) and not len(au.oddities_table(audit))
    assert au.plot_duplicates(audit) is None and au.plot_oddities(audit) is None


changes = {'resized': lambda im: im.resize((70, 60)), 'enlarged': lambda im: im.resize((150, 150)),
           'grey': lambda im: im.convert('L'), 'alpha': lambda im: im.convert('RGBA'), 'palette': lambda im: im.quantize(64),
           'darker': lambda im: im.point(lambda v: v*.8), 'the same pixels': lambda im: im}


@pytest.mark.parametrize('ending', ['png', 'webp', 'bmp'])
@pytest.mark.parametrize('change', changes)
def test_a_changed_copy(change, ending, clean):
    "In another size, mode or format: found across splits, once."
    if (change, ending) in {('the same pixels', 'png')}: pytest.skip('the same bytes')
    changes[change](Image.open(clean/'train/a/03.png')).save(clean/f'test/a/copy.{ending}')
    assert found(clean)[1] == {('near', f'test/a/copy.{ending}', 'train/a/03.png', True, False, False)}


def test_mirrored_and_saved_again_under_another_label(clean):
    ImageOps.mirror(Image.open(clean/'train/a/03.png')).save(clean/'train/b/copy.jpg', quality=50)
    assert found(clean)[1] == {('near', 'train/a/03.png', 'train/b/copy.jpg', False, True, True)}


def test_exact_copies_within_and_across(clean):
    for to in ('train/a/copy.png', 'train/b/copy.png', 'test/b/copy.png'): shutil.copy(clean/'train/a/03.png', clean/to)
    audit, pairs = found(clean)
    first = 'test/b/copy.png'
    assert {(k, b, across, conflict) for k, a, b, across, conflict, _ in pairs if a == first} == {
        ('exact', 'train/a/03.png', True, True), ('exact', 'train/a/copy.png', True, True), ('exact', 'train/b/copy.png', True, False)}
    assert len(pairs) == 3 and audit.pairs.group.nunique() == 1
    table = au.duplicates_table(audit).loc['exact']
    assert table['test images with a twin outside'] == load_data(create_run(dataset=f'folder:{clean}', model='lenet5')).leaked == 1


def test_a_near_copy_of_copies_is_seen_in_every_split(clean):
    "The same file is in train and test; a smaller one of it in train is a twin of the test file too."
    shutil.copy(clean/'train/a/03.png', clean/'test/a/copy.png')
    Image.open(clean/'train/a/03.png').resize((60, 60)).save(clean/'train/a/small.png')
    audit, pairs = found(clean)
    assert {p[:4] for p in pairs} == {('exact', 'test/a/copy.png', 'train/a/03.png', True),
                                      ('near', 'test/a/copy.png', 'train/a/small.png', True),
                                      ('near', 'train/a/03.png', 'train/a/small.png', False)}
    assert list(au.twins_in_test(audit, 'near').path) == ['test/a/copy.png']


def test_flat_images_do_not_flood(clean):
    "Two hundred nearly white scans are one remark each, and not 20,000 pairs."
    rng = np.random.default_rng(0)
    for i in range(200):
        Image.fromarray((250 + rng.integers(0, 3, (40, 40))).astype(np.uint8)).save(clean/f'train/a/flat{i:03}.png')
    audit, pairs = found(clean)
    assert not pairs
    assert (au.oddities_table(audit).reason == 'plain: hardly any contrast').sum() == 200


def test_many_copies_are_a_star_and_not_a_web(clean):
    for i in range(300): shutil.copy(clean/'train/a/03.png', clean/f'train/a/copy{i:03}.png')
    assert len(found(clean)[1]) == 300


def test_unreadable_odd_and_unbalanced(clean):
    "Broken files do not stop it, whatever their share, and each fault is named once."
    whole = (clean/'train/a/00.png').read_bytes()
    for i in range(9): (clean/f'train/a/half{i}.png').write_bytes(whole[:len(whole)//2])
    (clean/'train/b/notes.txt').write_text('cats')
    picture(900).resize((9, 9)).save(clean/'train/b/tiny.png')
    picture(901).resize((300, 40)).save(clean/'train/b/long.png')
    picture(902).convert('L').save(clean/'train/b/grey.png')
    picture(903).convert('RGBA').save(clean/'test/b/alpha.png')
    picture(904).save(clean/'test/b/disguised.jpg', 'bmp')
    with pytest.raises(StudyError, match='cannot be read'): load_data(create_run(dataset=f'folder:{clean}', model='lenet5'))
    audit, pairs = found(clean)
    assert not pairs and len(audit.unreadable) == 10
    assert set(audit.unreadable.path) == {*(f'train/a/half{i}.png' for i in range(9)), 'train/b/notes.txt'}
    odd = au.oddities_table(audit)
    assert dict(zip(odd.path, odd.reason)) == {
        'train/b/tiny.png': 'much smaller than most', 'train/b/long.png': 'much longer than wide',
        'train/b/grey.png': 'of another mode than most', 'test/b/alpha.png': 'of another mode than most',
        'test/b/disguised.jpg': 'not of the format it is named after'}
    counts = au.counts_table(audit)
    assert counts.to_dict('index') == dict(a=dict(train=12, test=12, images=24, unreadable=9), b=dict(train=15, test=14, images=29, unreadable=1))


def test_the_split_is_that_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    root = write(tmp_path/'x', splits=['photos'], n=30)/'photos'
    audit = au.audit_data(f'folder:{root}')
    run = load_data(create_run(dataset=f'folder:{root}', model='lenet5'))
    assert audit.items.set_index('path').split.to_dict() == run.items.set_index('path').split.to_dict()
    assert 'split_seed=0' in audit.split
    assert au.overview_table(audit).value['fingerprint'] == run.fingerprint


def test_hashes_are_kept_and_a_changed_file_is_seen(clean, monkeypatch):
    assert not found(clean)[1]
    calls = []
    monkeypatch.setattr(duplicates, '_each', lambda f, root, paths, doing: calls.append(doing) or [f(root/p) for p in paths])
    assert not found(clean)[1] and not calls
    Image.open(clean/'train/a/03.png').resize((80, 80)).save(clean/'test/b/05.png')
    assert {p[:3] for p in found(clean)[1]} == {('near', 'test/b/05.png', 'train/a/03.png')}


@pytest.mark.parametrize('layout, message', [((), 'There are no class folders'), (('a',), 'There is only one class')])
def test_folders_that_are_none(layout, message, tmp_path):
    (tmp_path/'photos').mkdir()
    for c in layout:
        (tmp_path/'photos'/c).mkdir()
        picture(1).save(tmp_path/'photos'/c/'1.png')
    with pytest.raises(StudyError, match=message): au.audit_data(f'folder:{tmp_path}/photos')
    with pytest.raises(StudyError, match=message): au.audit_page(f'folder:{tmp_path}/photos', tmp_path/'page.html')


def test_the_page(clean, tmp_path):
    "One file; names with HTML and dollars are text; a pair is shown; nothing is fetched and no code is shown."
    (clean/'train'/'a').rename(clean/'train'/'<b>bold & $x^2$')
    (clean/'test'/'a').rename(clean/'test'/'<b>bold & $x^2$')
    c = clean/'train'/'<b>bold & $x^2$'
    Image.open(c/'03.png').resize((60, 60)).save(c/'$a$ <script>alert(1)<.png')
    (c/'<img src=x onerror=alert(2)>.png').write_bytes(b'no image')
    out = au.audit_page(f'folder:{clean}', tmp_path/'new folder'/'page.html')
    page = out.read_text()
    assert os.listdir(out.parent) == ['page.html']
    assert '<script>alert' not in page and '<img src=x' not in page and '<b>bold' not in page
    assert '$a$ &lt;script&gt;alert(1)&lt;.png' in page and '&lt;img src=x onerror=alert(2)&gt;.png' in page
    assert not re.search(r'(src|href)="?https?:|from [\'"]http|MathJax\.js', page)
    assert page.count('data:image/png;base64') >= 5 and len(page) < 3e6


def test_a_wrong_parameter_of_the_notebook(clean, tmp_path):
    from pathlib import Path
    import papermill
    with pytest.raises(papermill.PapermillExecutionError, match="There is no parameter 'distanse'. Did you mean 'distance'"):
        papermill.execute_notebook(Path(__file__).parent.parent/'nbs/audit_data.ipynb', tmp_path/'x.ipynb',
                                   dict(distanse=3), progress_bar=False)
    with pytest.raises(StudyError, match="Did you mean 'similar'"): au.audit_page('digits', tmp_path/'x.html', similiar=.9)


def test_without_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr('imgstudy.core.find_spec', lambda name: type('spec', (), dict(origin=str(tmp_path/'imgstudy/__init__.py'))))
    monkeypatch.chdir(tmp_path) # away from the checkout
    with pytest.raises(StudyError, match='with a checkout of imgstudy'): au.audit_page('digits', tmp_path/'x.html')


@pytest.mark.data
def test_cats_vs_dogs():
    "Six files are there twice, as their README says; every pair is confirmed byte by byte."
    audit = au.audit_data('cats_vs_dogs')
    exact = audit.pairs[audit.pairs.kind == 'exact']
    root = find_images('cats_vs_dogs')[0]
    assert all((root/p.path_a).read_bytes() == (root/p.path_b).read_bytes() for p in exact.itertuples())
    assert len(audit.items) == 25000 and not len(audit.unreadable)
    assert len(exact) == 6
    assert (audit.pairs.kind == 'near').sum() > 20


@pytest.mark.data
@pytest.mark.slow
def test_cifar10():
    "Near duplicates across the official split, fewer than the 3.25 % that a trained network and people found (Barz & Denzler 2020)."
    audit = au.audit_data('cifar10')
    table = au.duplicates_table(audit)
    assert len(audit.items) == 60000 and audit.split == 'as the data set comes'
    assert 0.3 < table.loc['near', '% of the test'] < 3.25
