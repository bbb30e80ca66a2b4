"Duplicates stay on one side of a split, also of a given one, and the command says what they were worth."
import shutil
import numpy as np, pytest
from PIL import Image
from imgstudy.core import StudyError
from imgstudy.data.split import load_data
from imgstudy.leak import leak_effect
from imgstudy.runs import make_run
from imgstudy.study.create import create_run
from imgstudy.training.train import train


@pytest.fixture
def given(tmp_path):
    "A folder with its own split: three of the twelve test images of each class are training images, saved again smaller."
    rng = np.random.default_rng(0)
    for c in 'ab':
        for s, n in (('train', 30), ('test', 9)):
            (tmp_path/f'photos/{s}/{c}').mkdir(parents=True)
            for i in range(n): Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((48, 48), Image.Resampling.BICUBIC).save(tmp_path/f'photos/{s}/{c}/{i}.png')
        for i in range(3): Image.open(tmp_path/f'photos/train/{c}/{i}.png').resize((40, 40)).save(tmp_path/f'photos/test/{c}/twin{i}.png')
    return tmp_path/'photos'


def test_twins_of_given_test_images_are_not_trained_on(given):
    run = lambda **kw: load_data(make_run(dataset=f'folder:{given}', model='lenet5', **kw))
    plain, clean = run(), run(groups='duplicates')
    assert {*clean.of('test').path} == {*plain.of('test').path} and clean.fingerprint == plain.fingerprint
    assert not {*clean.of('test').group} & {*clean.of('train').group, *clean.of('valid').group}
    gone = {*plain.items.path} - {*clean.items.path}
    assert gone == {f'train/{c}/{i}.png' for c in 'ab' for i in range(3)}


def test_the_command(given, tmp_path, capsys):
    from imgstudy.cli import answer
    root = tmp_path/'runs'
    with pytest.raises(StudyError, match='There are no records'): answer(['leak', f'folder:{given}', '--root', str(root)])
    train(create_run(dataset=f'folder:{given}', model='mlp_s', size=16, epochs=1), root=root)
    answer(['leak', f'folder:{given}', '--root', str(root), '--train'])
    said = capsys.readouterr().out
    assert '6 of 24 test images (25.0%) have a twin' in said and 'on the same test images' in said
    with pytest.raises(StudyError, match='no-such-thing'): answer(['leak', 'no-such-thing', '--root', str(root)])


def test_a_column_of_that_name_is_still_a_column(given, tmp_path):
    rows = [f'photos/train/{c}/{i}.png,{c},{c}{i % 5}' for c in 'ab' for i in range(30)]
    (tmp_path/'t.csv').write_text('\n'.join(['image,label,duplicates', *rows]) + '\n')
    data = load_data(make_run(dataset=f'csv:{tmp_path}/t.csv', model='lenet5', groups='duplicates'))
    assert data.items.group.nunique() == 10


def test_unknown_groups_name_the_choices(given):
    with pytest.raises(StudyError, match='`duplicates`, a column'): load_data(make_run(dataset=f'folder:{given}', model='lenet5', groups='twins'))


def test_few_leaked_images_are_no_price():
    e = leak_effect(np.ones(1000), np.arange(1000) < 5, np.zeros(1000))
    assert e['low'] < 0 < e['high'] and e['worth_high'] - e['worth_low'] < .01


def copied(given, how):
    "Copies of training images among those that test, and how many."
    if how == 'under another name':
        for i in range(4): shutil.copy(given/f'train/a/{i}.png', given/f'test/a/copy{i}.png')
        return f'folder:{given}', 4
    if how == 'in another class':
        shutil.copy(given/'train/a/0.png', given/'test/b/copy.png')
        return f'folder:{given}', 1
    if how == 'of a validation image':
        for c in 'ab': shutil.copytree(given/f'test/{c}', given/f'valid/{c}')
        return f'folder:{given}', 24
    rows = [f'train/a/{i}.png,a,train' for i in range(9)] + [f'train/b/{i}.png,b,train' for i in range(9)]
    shutil.copy(given/'train/a/0.png', given/'test/a/copy.png')
    (given/'t.csv').write_text('\n'.join(['image,label,split', *rows, 'test/a/copy.png,a,test', 'test/b/0.png,b,test']) + '\n')
    return f'csv:{given}/t.csv', 1


@pytest.mark.parametrize('how', ['under another name', 'in another class', 'of a validation image', 'in a table'])
def test_train_says_that_test_images_leaked(how, given, tmp_path, monkeypatch, capsys):
    from imgstudy.cli import answer
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    dataset, n = copied(given, how)
    say = lambda *words: (answer(['train', dataset, '--model', 'mlp_s', '--size', '16', '--epochs', '1', '--root', str(tmp_path/'runs'), *words]),
                          capsys.readouterr().out)[1]
    said = say('--seeds', '2')
    (line,) = [l for l in said.splitlines() if 'byte for byte' in l]
    assert line.startswith(f'{n} of ') and 'groups=\'duplicates\'' in line and 'imgstudy leak' in line
    assert said.index(line) < said.index('trainings of mlp_s')
    assert 'byte for byte' not in say('--groups', 'duplicates', '--dry-run')


def test_nothing_is_said_without_copies(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    train(create_run(dataset=f'folder:{given}', model='mlp_s', size=16, epochs=1), root=tmp_path/'runs')
    assert 'byte for byte' not in capsys.readouterr().out
