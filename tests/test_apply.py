"`predict` and `explain` in the folder that they write into: what they wrote before does not count as new."
import os, shutil
from types import SimpleNamespace
import numpy as np, pytest
from PIL import Image
from imgstudy.apply import class_folder, explain_files, predict_files, sort_into, sorted_before
from imgstudy.core import StudyError
from imgstudy.study.create import create_run
from imgstudy.training.train import train


@pytest.fixture(scope='module')
def record(tmp_path_factory):
    return train(create_run(dataset='digits', model='lenet5', epochs=1, subset=100), root=tmp_path_factory.mktemp('runs')).path


@pytest.fixture
def new(tmp_path, monkeypatch):
    "Nine images, three of them in a folder of their own; the working folder is theirs."
    rng, top = np.random.default_rng(0), tmp_path/'new'
    (top/'more').mkdir(parents=True)
    for i in range(9): Image.fromarray(rng.integers(0, 255, (12, 12), np.uint8)).save(top/('more' if i > 5 else '')/f'{i}.png')
    (tmp_path/'link').symlink_to(top)
    monkeypatch.chdir(top)
    return top


def predict(record, *files, **kw): predict_files(SimpleNamespace(**dict(record=record, files=[*map(str, files)], out='', sort_into='', json=False) | kw))


# the images that are named, the folder that they are sorted into, how many these are, and whether copies are among what is named
twice = [('.', 'sorted', 9, True), ('../new', 'out/of/this', 9, True), ('../link', 'sorted', 9, True), ('.', '../link/sorted', 9, True),
         ('more', 'more', 3, True), ('more', '.', 3, False), ('0.png', '.', 1, False)]


@pytest.mark.parametrize('files, to, n, again', twice, ids=str)
def test_what_was_sorted_before_is_not_sorted_again(record, new, capsys, files, to, n, again):
    before = {*new.rglob('*.png')}
    for k in range(2):
        predict(record, files, sort_into=to)
        said = capsys.readouterr()
        assert f'{n} images sorted into {to}: ' in said.out and f"{n} prediction{'s'*(n > 1)}: " in said.err
        assert (' left out, as images are sorted into ' in said.err) == (k == 1 and again)
        assert len({*new.rglob('*.png')} - before) == n


def test_all_images_sorted_before_is_said(record, new, capsys):
    predict(record, '.', sort_into='sorted')
    with pytest.raises(StudyError, match='9 images are left out, as images are sorted into sorted, where they are. There is no other: name'):
        predict(record, 'sorted', sort_into='sorted')
    predict(record, 'sorted', sort_into='other')  # which is another place
    assert '9 images sorted into other' in capsys.readouterr().out


def test_a_file_that_is_there_is_not_copied(new, tmp_path):
    (new/'sorted/a').mkdir(parents=True)
    os.link(new/'0.png', new/'sorted/a/0.png')
    shutil.copyfile(new/'1.png', new/'sorted/a/1.png')
    (new/'sorted/a/1.png').chmod(0o400)
    shutil.copyfile(new/'2.png', new/'sorted/a/3.png')  # another of that name
    sort_into('sorted', ['0.png', '1.png', 'sorted/a/1.png', '3.png'], ['a']*4)
    assert sorted(p.name for p in (new/'sorted').rglob('*.png')) == ['0.png', '1.png', '3-1.png', '3.png']


def test_images_beside_the_folders_of_classes_count(new):
    names = ['0.png', 'more/6.png', 'cat/1.png', 'cat']
    assert sorted_before(names, ['.'], '.', ['cat', 'dog']) == {'cat/1.png'}
    assert sorted_before(names, ['..'], '.', ['cat', 'dog']) == {*names}
    assert sorted_before(names, ['.'], 'elsewhere', ['cat', 'dog']) == set()


@pytest.mark.parametrize('out', ['', 'seen.png', 'more/../seen.jpg'])
def test_the_picture_of_before_is_not_explained(record, new, capsys, out):
    for k in range(2):
        explain_files(SimpleNamespace(record=record, files=['.'], out=out))
        said = capsys.readouterr()
        assert said.out.startswith('9 images, and where') and ('1 image is left out, as the picture is written to' in said.err) == (k == 1)


@pytest.mark.parametrize('name, folder', [('cat', 'cat'), ('cat/dog', 'cat_dog'), ('../../out', '.._.._out'), ('..', '__'), ('/etc', '_etc'), ('a\\b', 'a_b'), ('St. Bernard', 'St. Bernard')])
def test_a_class_is_one_folder_in_the_folder(new, name, folder):
    "Names of classes come from tables and from records of others."
    assert class_folder(name) == folder
    sort_into('sorted', ['0.png'], [name])
    assert [p.relative_to(new/'sorted').as_posix() for p in (new/'sorted').rglob('*.png')] == [f'{folder}/0.png']
    assert len([*new.parent.rglob('0.png')]) == 2  # the image and its copy, and nothing elsewhere
