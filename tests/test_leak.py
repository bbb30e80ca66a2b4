"Duplicates stay on one side of a split, also of a given one, and the command says what they were worth."
import shutil
import numpy as np, pytest
from PIL import Image, ImageOps
from imgstudy.core import StudyError
from imgstudy.data.split import load_data
from imgstudy.leak import leak_effect
from imgstudy.runs import make_run
from imgstudy.study.create import create_run
from imgstudy.training.train import say_leaked, train


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


@pytest.mark.parametrize('pairs', [1, 2])
def test_without_a_twin_nothing_is_trained_again(pairs, given, tmp_path, capsys):
    from imgstudy.cli import answer
    for c in 'ab':
        for i in range(3): (given/f'test/{c}/twin{i}.png').unlink()
    train(create_run(dataset=f'folder:{given}', model='mlp_s', size=16, epochs=1), root=tmp_path/'runs')
    answer(['leak', f'folder:{given}', '--root', str(tmp_path/'runs'), '--train', '--pairs', str(pairs)])
    said = capsys.readouterr().out
    assert 'None of 18 test images has a twin' in said and 'Nothing is trained again, as no test image has a twin' in said
    assert len([*(tmp_path/'runs').glob('*/record.json')]) == 1


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


again = {'smaller': lambda im: im.resize((40, 40)), 'as a JPEG': lambda im: im, 'mirrored': ImageOps.mirror, 'larger': lambda im: im.resize((96, 96))}
commands = {'train': '--model mlp_s --size 16 --epochs 1', 'compare': '--models mlp_s --size 16 --epochs 1 --seeds 1 --dry-run'}


@pytest.mark.parametrize('how', again)
@pytest.mark.parametrize('command', commands)
def test_copies_that_were_saved_again_are_told(command, how, given, tmp_path, monkeypatch, capsys):
    from imgstudy.cli import answer
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    for f in given.glob('test/*/twin*'): f.unlink()
    words = [command, f'folder:{given}', *commands[command].split(), '--root', str(tmp_path/'runs')]
    answer(words)
    assert 'saved again' not in capsys.readouterr().out
    other = shutil.copytree(given, tmp_path/'other')
    for i in range(5): again[how](Image.open(given/f'train/a/{i}.png')).save(other/f'test/a/again{i}.jpg')
    words[1] = f'folder:{other}'
    answer(words)
    said = capsys.readouterr().out
    (line,) = [l for l in said.splitlines() if 'saved again' in l]
    assert line.startswith('5 of 23 test images seem to be among those to train or validate on') and 'imgstudy audit' in line
    assert said.index(line) < said.index('1 training'), 'before the time is spent'
    answer([*words, '--groups', 'duplicates'])
    assert 'saved again' not in capsys.readouterr().out


def test_both_kinds_of_copies_are_in_one_line(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    copied(given, 'under another name')
    say_leaked(load_data(make_run(dataset=f'folder:{given}', model='lenet5')))
    (line,) = [l for l in capsys.readouterr().out.splitlines() if 'byte for byte' in l]
    assert line.startswith('4 of 28 test images are also') and '; 6 of 28 test images seem to be among them, resized' in line


def test_best_says_it_too(given, tmp_path, monkeypatch, capsys):
    from imgstudy.best import start_search
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    start_search(f'folder:{given}', networks={}, small=('mlp_s',), root=tmp_path/'runs')
    assert '6 of 24 test images seem to be among those to train or validate on' in capsys.readouterr().out


def test_an_image_that_tests_in_its_own_stead_is_no_copy(given, capsys):
    from imgstudy.best import without_test
    run = create_run(dataset=f'folder:{given}', model='mlp_s', size=16)
    say_leaked(without_test(load_data(run)))
    assert 'byte for byte' not in capsys.readouterr().out, 'the search judges by validation images'
    for i in range(3): shutil.copy(given/f'train/a/{i}.png', given/f'test/a/copy{i}.png')
    say_leaked(load_data(create_run(dataset=f'folder:{given}', model='mlp_s', size=16)))
    assert '3 of ' in capsys.readouterr().out


def test_uneven_classes_in_train_compare_and_best(tmp_path, monkeypatch, capsys):
    from imgstudy.cli import answer
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    rng = np.random.default_rng(0)
    for name, n in dict(x=80, y=8, z=40).items():
        (tmp_path/f'p/{name}').mkdir(parents=True)
        for i in range(n): Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(tmp_path/f'p/{name}/{i}.png')
    line = 'The largest class (x, 51 training images) is 10 times the smallest (y, 5)'
    words = ['compare', f'folder:{tmp_path}/p', *commands['compare'].split(), '--root', str(tmp_path/'runs')]
    answer(words)
    said = capsys.readouterr().out
    assert line in said and '--class-weights balanced' in said and 'p: 3 classes; train' in said
    from imgstudy.best import start_search
    third = shutil.copytree(tmp_path/'p', tmp_path/'r')
    start_search(f'folder:{third}', networks={}, small=('mlp_s',), root=tmp_path/'runs')
    assert line in capsys.readouterr().out, 'before anything is tried'
    other = shutil.copytree(tmp_path/'p', tmp_path/'q')
    answer(['train', f'folder:{other}', *commands['train'].split(), '--class-weights', 'balanced', '--dry-run', '--root', str(tmp_path/'runs')])
    said = capsys.readouterr().out
    assert 'The largest class' not in said and '(scratch; 1 epoch, 16 pixels)' in said
