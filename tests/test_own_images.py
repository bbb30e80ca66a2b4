"Your own images: they move and grow, and nothing that leaves the machine says where they were."
import json, os, re, shutil, sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from safetensors.torch import save_file
from imgstudy import cli
from imgstudy.best import start_search
from imgstudy.core import StudyError
from imgstudy.data.audit import audit_data
from imgstudy.data.content import content_name, images_of, known_state, place_of, state_file, state_of
from imgstudy.data.datasets import get_dataset, own_path
from imgstudy.data.growth import changes, kept_splits
from imgstudy.data.split import load_data, part_of
from imgstudy.models.register import create_model
from imgstudy.predict import export_model, predict
from imgstudy.records.record import copy_record, load_model, read_record, verify_record, write_record, Record
from imgstudy.report.cards import write_cards
from imgstudy.runs import Run, is_content, run_from_dict, run_id, run_to_dict
from imgstudy.study.create import create_run
from imgstudy.study.design import Row, Study
from imgstudy.study.estimate import guess_seconds
from imgstudy.study.own_study import _place, change_notebook, close_studies, find_study, new_study
from imgstudy.study.studies import study_runs
from imgstudy.sweep.needs import data_missing
from imgstudy.training.suspects import all_images, network_run
from imgstudy.training.train import train, train_once

classes = 'cat dog owl'.split()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr('imgstudy.data.split._already_said', set())


def with_gps():
    "EXIF as a telephone writes it."
    exif = Image.Exif()
    exif[0x010f], exif[0x0132] = 'SecretCamera', '2024:02:03 04:05:06'
    exif.get_ifd(0x8825).update({1: 'N', 2: (52., 31., 12.), 3: 'E', 4: (13., 24., 18.), 29: '2024:02:03'})
    return exif


def photographs(top, numbers, seed=0, names=classes):
    "A file per class and number; each class has a colour of its own."
    rng = np.random.default_rng(seed)
    for k, c in enumerate(names):
        (top/c).mkdir(parents=True, exist_ok=True)
        for i in numbers:
            a = rng.integers(0, 110, (12, 12, 3), np.uint8)
            a[..., k % 3] += 120
            Image.fromarray(a).resize((48, 48)).save(top/c/f'IMG_{i:03}.jpg', exif=with_gps())
    return top


def lenet(where, **params): return create_run(**dict(dataset=f'folder:{where}', model='lenet5', epochs=1, size=16) | params)


def splits(run): return load_data(run).items.set_index('path').split


def command(capsys, *words):
    with pytest.MonkeyPatch.context() as m:
        m.setattr(sys, 'argv', ['imgstudy', *map(str, words)])
        cli.main()
    return capsys.readouterr().out


# Moved

@pytest.mark.parametrize('move', ['renamed', 'elsewhere', 'copied', 'linked', 'by a relative path'])
def test_a_folder_that_moved_is_the_same_run(move, tmp_path, monkeypatch):
    photos, new = photographs(tmp_path/'photos', range(12)), tmp_path/'deep/er'/'Pictures of ours'
    run = lenet(photos)
    new.parent.mkdir(parents=True)
    if move == 'renamed': new = photos.rename(tmp_path/'pets')
    if move == 'elsewhere': photos.rename(new)
    if move == 'copied': shutil.copytree(photos, new)
    if move == 'linked': new.symlink_to(photos)
    if move == 'by a relative path': monkeypatch.chdir(tmp_path); new = 'photos'
    again = lenet(new)
    assert again == run and run_id(again) == run_id(run) and is_content(run.dataset)
    assert load_data(run).fingerprint == load_data(Run(f'folder:{new}', 'lenet5')).fingerprint


@pytest.mark.parametrize('change', ['another photograph', 'one less', 'other pixels', 'a renamed file', 'another class'])
def test_other_images_are_another_run(change, tmp_path):
    photos = photographs(tmp_path/'photos', range(12))
    run = lenet(photos)
    if change == 'another photograph': photographs(photos, [99], names=['cat'])
    if change == 'one less': (photos/'cat/IMG_000.jpg').unlink()
    if change == 'other pixels': Image.new('RGB', (9, 9)).save(photos/'cat/IMG_000.jpg')
    if change == 'a renamed file': (photos/'cat/IMG_000.jpg').rename(photos/'cat/a.jpg')
    if change == 'another class': (photos/'owl').rename(photos/'eagle')
    assert run_id(lenet(photos)) != run_id(run)


@pytest.mark.parametrize('beside', ['notes.txt', 'Thumbs.db', '.hidden/x.jpg', 'cat/readme.md'])
def test_what_is_no_image_does_not_count(beside, tmp_path):
    photos = photographs(tmp_path/'photos', range(12))
    run = lenet(photos)
    (photos/beside).parent.mkdir(exist_ok=True)
    (photos/beside).write_text('x')
    assert lenet(photos) == run


def test_a_table_that_moved(tmp_path):
    photos = photographs(tmp_path/'birds', range(12))
    rows = [(f'{c}/IMG_{i:03}.jpg', c) for c in classes for i in range(12)]
    table = pd.DataFrame(rows, columns=['image', 'label'])
    table.to_csv(photos/'labels.csv', index=False)
    run = lenet(photos, dataset=f'csv:{photos}/labels.csv')
    new = photos.rename(tmp_path/'moved')
    assert lenet(new, dataset=f'csv:{new}/labels.csv') == run and len(load_data(run).items) == 36
    table.assign(label=table.label[::-1].to_list()).to_csv(new/'labels.csv', index=False) # the same files, other labels
    assert lenet(new, dataset=f'csv:{new}/labels.csv').dataset != run.dataset
    with pytest.raises(StudyError, match='24 relabelled'): load_data(run)


@pytest.mark.parametrize('where, given, title', [('birds', 'folder:.', 'birds'), ('birds', 'folder: ./ ', 'birds'), ('birds/owl', 'folder:..', 'birds'), ('birds/owl', 'folder:../../link', 'link'),
                                                 ('birds', 'csv:labels.csv', 'birds'), ('birds/owl', 'csv:../labels.csv', 'birds'), ('birds', 'csv:./owls.csv', 'owls')])
def test_images_in_the_working_folder(where, given, title, tmp_path, runs_dir, monkeypatch, capsys):
    photos = photographs(tmp_path/'birds', range(12))
    (tmp_path/'link').symlink_to(photos)
    for name in ('labels', 'owls'): (photos/f'{name}.csv').write_text('image,label\n' + ''.join(f'{c}/IMG_{i:03}.jpg,{c}\n' for c in classes for i in range(12)))
    monkeypatch.chdir(tmp_path/where)
    assert get_dataset(given).title == title
    said = command(capsys, 'train', given, '--model', 'lenet5', '--dry-run')
    assert f"{title if title != 'link' else 'birds'}: 3 classes; train " in said, 'a training knows what a link leads to'
    full = given.partition(':')[0] + ':' + os.path.abspath(given.partition(':')[2].strip())
    assert lenet('', dataset=given) == lenet('', dataset=full) and own_path(given).exists()


@pytest.mark.parametrize('given', ['folder:', 'csv:', 'folder:  ', 'csv: '])
def test_no_path_is_not_the_working_folder(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(photographs(tmp_path/'photos', range(12)))
    for ask in (lambda: get_dataset(given), lambda: lenet('', dataset=given), lambda: audit_data(given)):
        with pytest.raises(StudyError, match=f"After {given.strip()} comes the path of a {dict(folder='folder', csv='table')[given.partition(':')[0]]}"): ask()
    assert _place(given, tmp_path) == given, 'nor the folder of a study'
    assert _place('folder:.', tmp_path) == f'folder:{tmp_path}'


def test_trained_explained_and_predicted_after_a_move(tmp_path, runs_dir, capsys):
    photos = photographs(tmp_path/'photos', range(12))
    train_words = lambda where: ('train', f'folder:{where}', '--model', 'lenet5', '--epochs', 1, '--size', 16)
    command(capsys, *train_words(photos))
    (folder,) = runs_dir.iterdir()
    new = photos.rename(tmp_path/'pets')
    record = read_record(folder)
    assert 'were in' in (why := data_missing(record.run.dataset)) and 'imgstudy locate folder:PATH' in why
    with pytest.raises(StudyError, match='say where they are now'): load_data(record.run)
    assert len(predict(new/'cat', record)) == 12 # takes no images of the training
    assert record.run.dataset in command(capsys, 'locate', f'folder:{new}')
    assert place_of(record.run.dataset) == new and not data_missing(record.run.dataset)
    assert 'was trained before' in command(capsys, *train_words(new))
    assert command(capsys, 'explain', folder.name, *[*new.glob('cat/*.jpg')][:2], '--out', tmp_path/'seen.png')


def test_a_name_that_nobody_knows(tmp_path):
    run = replace(lenet(photographs(tmp_path/'photos', range(12))), dataset='folder:cat_dog@' + '0'*12)
    with pytest.raises(StudyError, match='have not been seen on this machine: say where'): load_data(run)


@pytest.mark.parametrize('dataset', ['folder:/home/somebody/photos', 'folder:photos', 'csv:/data/labels.csv'])
def test_records_of_before_are_read_and_verified(dataset, tmp_path, runs_dir):
    "They hold a path; their id was made of it, and stays."
    record = train(lenet(photographs(tmp_path/'photos', range(12))))
    record.run = replace(record.run, dataset=dataset)
    again = read_record(write_record(record))
    verify_record(again)
    assert again.id == run_id(replace(record.run, dataset=dataset)) and not (again.path/'images.csv').exists()
    assert run_id(Run('folder:/x/photos', 'lenet5')) == 'photos-lenet5-s0-219459ed'


# Grown

@pytest.fixture
def grown(tmp_path, runs_dir):
    "The run on 60 photographs, trained, and that on 12 more, one gone and one retouched."
    photos = photographs(tmp_path/'photos', range(20))
    first = lenet(photos)
    old = splits(first)
    train(first)
    photographs(photos, range(20, 24), seed=5)
    gone, retouched = old.index[old == 'train'][0], old.index[old == 'test'][0]
    (photos/gone).unlink()
    Image.new('RGB', (48, 48), 'red').save(photos/retouched)
    return photos, first, old, lenet(photos), gone, retouched


def test_what_tested_before_tests_still(grown, capsys):
    photos, first, old, run, gone, retouched = grown
    now = splits(run)
    assert run.grown_from == state_of(first.dataset) and run.dataset != first.dataset
    here = old.drop(gone)
    assert (now[here.index] == here).all(), 'nobody changed sides'
    assert now.drop(here.index).value_counts().to_dict().keys() >= {'train', 'test'} and (now == 'test').sum() == 15
    said = load_data(run).said
    assert '12 added (cat/IMG_020.jpg, ' in said and f'1 gone ({gone})' in said and f'1 changed ({retouched})' in said


def test_the_old_record_says_of_which_state_it_is(grown, runs_dir):
    photos, first, old, run, *_ = grown
    record = read_record(run_id(first))
    assert record.run.dataset.endswith('@' + record.info['data']['fingerprint'][:12])
    assert pd.read_csv(record.path/'images.csv').path.tolist() == sorted(old.index)
    with pytest.raises(StudyError, match='1 gone .*, 1 changed .*or train on what is there now'): load_data(first)
    assert train_once(first).metrics == record.metrics, 'it is not lost'


def test_the_old_state_is_found_among_more_images(tmp_path, runs_dir):
    photos = photographs(tmp_path/'photos', range(12))
    first = lenet(photos)
    old = splits(first)
    photographs(photos, range(12, 20), seed=3)
    assert splits(first).equals(old) and '24 that came later are left out' in load_data(first).said


@pytest.mark.parametrize('params', [dict(), dict(valid=0), dict(split_seed=3), dict(folds=3, fold=1), dict(folds=2, fold=0, valid=0),
                                    dict(groups=r'name:IMG_(\d+)'), dict(groups=r'name:(\d)\.jpg')], ids=str)
def test_nobody_changes_sides_twice(params, tmp_path, runs_dir):
    "Also after a second growth, whatever the protocol."
    photos, before = photographs(tmp_path/'photos', range(20)), None
    for k, more in enumerate(([], range(20, 26), range(26, 29))):
        photographs(photos, more, seed=k)
        run = lenet(photos, **params)
        write_record(Record(run, 'finished')) # trained on, as far as this is concerned
        now = splits(run)
        assert run.grown_from is None if k == 0 else run.grown_from.count(',') == k - 1
        if k: assert (now[before.index] == before).all() and len(now) > len(before)
        if 'group' in load_data(run).items: assert load_data(run).items.groupby('group').split.nunique().max() == 1
        before = now
    assert {*before} == {'train', 'test'} | ({'valid'} if params.get('valid') != 0 else set())
    assert lenet(photos, **params) == run, 'the same once more'


def test_every_new_image_tests_in_one_fold(tmp_path, runs_dir):
    photos = photographs(tmp_path/'photos', range(12))
    write_record(Record(lenet(photos, folds=4, fold=0), 'finished'))
    photographs(photos, range(12, 19), seed=2)
    folds = [lenet(photos, folds=4, fold=k) for k in range(4)]
    tested = [p for r in folds for p in load_data(r).of('test').path]
    assert sorted(tested) == sorted(load_data(folds[0]).items.path) and len({*tested}) == 57


@pytest.mark.parametrize('how', ['not trained on', 'fresh', 'read in another way', 'other images at the same place'])
def test_not_grown(how, tmp_path, runs_dir):
    photos = photographs(tmp_path/'photos', range(12))
    if how != 'not trained on': write_record(Record(lenet(photos), 'finished'))
    if how == 'other images at the same place': shutil.rmtree(photos)
    photographs(photos, range(12, 20), seed=1)
    run = lenet(photos, **{'fresh': dict(grown_from='fresh'), 'read in another way': dict(layout='class')}.get(how, {}))
    assert run.grown_from is None and part_of(run) == part_of(replace(run, grown_from=None))


def test_moved_and_grown_at_once(tmp_path, runs_dir):
    photos = photographs(tmp_path/'photos', range(12))
    write_record(Record(first := lenet(photos), 'finished'))
    old = splits(first)
    photographs(new := photos.rename(tmp_path/'pets'), range(12, 16), seed=1)
    run = lenet(new)
    assert run.grown_from == state_of(first.dataset) and (splits(run)[old.index] == old).all()
    assert splits(first).equals(old), 'and the first finds its images there'


def test_without_a_cache_the_record_knows_its_images(grown, tmp_path, monkeypatch, runs_dir):
    photos, first, old, run, *_ = grown
    now = splits(run)
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'another'))
    lenet(photos) # tells the machine where they are
    assert splits(run).equals(now)
    shutil.rmtree(runs_dir)
    with pytest.raises(StudyError, match="split anew with grown_from='fresh'"): load_data(run)


def test_train_goes_on_from_a_record(grown, runs_dir, capsys):
    photos, first, old, run, *_ = grown
    said = command(capsys, 'train', f'folder:{photos}', '--from', run_id(first), '--epochs', 2)
    assert '12 added' in said and f'(from {run_id(first)}; 2 epochs, 16 pixels)' in said
    (new,) = [r for p in runs_dir.glob('*/record.json') if (r := read_record(p.parent)).id != run_id(first)]
    assert new.run == replace(run, init=f'run:{run_id(first)}', recipe=replace(run.recipe, epochs=2))
    assert new.info['init']['counts'].keys() == {'loaded'}, 'the head too, as the classes are the same'
    assert {*old.index[old == 'train']}.isdisjoint(new.predictions['path']) and (old[old == 'test'].index.isin(new.predictions['path'])).all()


@pytest.mark.parametrize('words', [['train', '--epochs', '1'], ['train', '--dry-run'], ['features'], ['train', '--root', 'elsewhere']])
def test_a_record_from_elsewhere_says_how_to_go_on_from_it(words, tmp_path, runs_dir, monkeypatch, capsys):
    "The id alone would be looked for beside the new record, where it is not."
    photos = photographs(tmp_path/'photos', range(12))
    record = train(lenet(photos), root=tmp_path/'theirs').path
    monkeypatch.chdir(tmp_path)
    name, *more = words
    with pytest.raises(SystemExit) as e: command(capsys, name, f'folder:{photos}', '--from', record, *more)
    home = 'elsewhere' if '--root' in words else runs_dir
    way = f'the environment variable IMGSTUDY_RUNS={record.parent}' if name == 'features' else f'--root {record.parent}, where the new record goes then'
    assert f'must lie with the others in {home}, and {record} does not: copy that folder there, or give {way}.' in str(e.value)
    shutil.copytree(record, (tmp_path/home)/record.name)
    command(capsys, name, f'folder:{photos}', '--from', tmp_path/home/record.name, *more)
    if name == 'train': command(capsys, 'train', f'folder:{photos}', '--from', record, '--root', record.parent, '--dry-run')


def test_from_the_same_images_splits_as_before(tmp_path, runs_dir, capsys):
    photos = photographs(tmp_path/'photos', range(12))
    first = train(lenet(photos)).run
    command(capsys, 'train', f'folder:{photos}', '--from', run_id(first))
    runs = [read_record(p.parent).run for p in runs_dir.glob('*/record.json')]
    assert {(r.dataset, r.grown_from) for r in runs} == {(first.dataset, None)} and len(runs) == 2


def test_features_of_the_network_of_a_record(tmp_path, runs_dir, capsys):
    photos = photographs(tmp_path/'photos', range(12))
    record = train(lenet(photos))
    said = command(capsys, 'features', f'folder:{photos}', '--from', record.id, '--out', tmp_path/'f.csv')
    table = pd.read_csv(tmp_path/'f.csv')
    assert f'{len(table)} images' in said and len(table) == len(splits(record.run))
    assert {*table.path[table.split == 'test']} == {*record.predictions['path']}, 'what tested then'
    with pytest.raises(SystemExit, match='leave `--model` out'): command(capsys, 'features', f'folder:{photos}', '--from', record.id, '--model', 'vit')
    with pytest.raises(SystemExit, match='leave `--model` out'): command(capsys, 'train', f'folder:{photos}', '--from', record.id, '--model', 'vit')


def seen_by(kind, dataset, capsys, tmp_path):
    "How many images a command of this process takes."
    def said(*words):
        line = next(l for l in command(capsys, *words, '--dry-run', '--root', tmp_path/'runs').splitlines() if l.startswith('photos: '))
        assert 'left out' not in line
        return sum(int(n) for n in re.findall(r'(?:train|valid|test) (\d+)', line))
    if kind == 'train': return said('train', dataset, '--model', 'lenet5')
    if kind == 'compare': return said('compare', dataset, '--models', 'lenet5,mlp_s', '--seeds', 1)
    if kind == 'best': return (lambda f: f.train + f.valid + f.test)(start_search(dataset, {}, ('mlp_s',), root=tmp_path/'runs').facts)
    if kind == 'audit': return len(audit_data(dataset).items)
    if kind == 'suspects': return len(all_images(network_run(dataset, 'lenet5', init='scratch')).items)
    if kind == 'features':
        save_file(create_model('lenet5', 3, size=32).state_dict(), tmp_path/'w.safetensors')
        command(capsys, 'features', dataset, '--model', 'lenet5', '--init', f'file:{tmp_path}/w.safetensors', '--out', tmp_path/'f.csv')
        return len(pd.read_csv(tmp_path/'f.csv'))
    if kind == 'time': return round((guess_seconds(Run(dataset, 'mlp_s', size=16), 10**6) - 2)/(guess_seconds(Run('digits', 'mlp_s', size=16), 10**6) - 2)*1797)
    study = Study('mine', 'Which?', 'ours', '', (Row('all', dict(dataset=dataset, model='lenet5')),), (0., 1.))
    return len(load_data(study_runs(study, 'full', 1)['all'][0]).items)


@pytest.mark.parametrize('kind', ['train', 'compare', 'best', 'audit', 'suspects', 'features', 'time', 'a study'])
def test_what_a_folder_held_before_is_not_kept_in_memory(kind, tmp_path, runs_dir, capsys, monkeypatch):
    "A second command in the same process, as in a notebook, on a folder that has grown, shrunk, and is a table now."
    photos, seen = photographs(tmp_path/'photos', range(12)), lambda name: seen_by(kind, name, capsys, tmp_path)
    about = lambda n: n if kind != 'time' else pytest.approx(n, abs=3)
    assert seen(f'folder:{photos}') == about(36)
    photographs(photos, range(12, 20), seed=3)
    assert seen(f'folder:{photos}') == about(60)
    for i in range(4): (photos/f'owl/IMG_{i:03}.jpg').unlink()
    assert seen(f'folder:{photos}') == about(56)
    files = sorted(p.relative_to(photos) for p in photos.glob('*/*.jpg'))
    for n in (30, 56):
        taken = files[::2][:n] if n == 30 else files
        (photos/'labels.csv').write_text('image,label\n' + ''.join(f'{p},{p.parent}\n' for p in taken))
        assert seen(f'csv:{photos}/labels.csv') == about(len(taken))


def test_an_own_study_is_opened_again(tmp_path, runs_dir):
    "Photographs, rows and the place of the smaller scale may be others when the next command asks."
    study, few = new_study(tmp_path/'shades'), photographs(tmp_path/'shades/few', range(5))
    photos = photographs(study/'photos', range(12))
    change_notebook(study, "dataset='digits'", "dataset='folder:photos', layout='class'")
    change_notebook(study, 'small = dict()', "small = dict(dataset='folder:few')")
    (study/'references.csv').unlink()
    n = lambda scale: len(load_data(study_runs(find_study(study), scale)['AdamW'][0]).items)
    try:
        assert (n('full'), n('small'), n('smoke')) == (36, 15, 747), 'digits with a hundred to train on'
        photographs(photos, range(12, 20), seed=3), photographs(few, range(5, 7), seed=3)
        assert (n('full'), n('small')) == (60, 21)
        opened = find_study(study)
        photographs(photos, range(20, 24), seed=4)
        assert len(load_data(study_runs(opened, 'full')['AdamW'][0]).items) == 60, 'one command keeps to what it began with'
        change_notebook(study, "'AdamW'", "'Adam'")
        assert find_study(study).rows[0].name == 'Adam'
    finally: close_studies()


def test_changes_are_named():
    old = pd.DataFrame(dict(path=list('abcdef'), digest=list('123456'), label=list('xxxyyy')))
    new = pd.DataFrame(dict(path=list('abxdez'), digest=list('1b3456'), label=list('xxxyxy')))
    assert changes(old, new) == dict(added=[], gone=[], changed=['b'], renamed=['x', 'z'], relabelled=['e'])
    assert changes(old[:3], old[3:]) == dict(added=list('def'), gone=list('abc'), changed=[], renamed=[], relabelled=[])
    assert kept_splits(new, old.assign(split=list('uvwuvw'))).tolist() == list('uvwuvw')


# Private

def leaks(folder, words):
    "Files below `folder` that hold one of `words`, as UTF-8 or UTF-16, or inside a zip file."
    import io, zipfile
    def inside(data):
        if not zipfile.is_zipfile(io.BytesIO(data)): return data
        with zipfile.ZipFile(io.BytesIO(data)) as z: return data + b''.join(inside(z.read(n)) for n in z.namelist())
    found = [(p.name, w) for p in Path(folder).rglob('*') if p.is_file() for data in [inside(p.read_bytes())] for w in words
             if w.encode() in data or w.encode('utf-16-le') in data]
    return found


def test_nothing_says_where_the_photographs_were(tmp_path, runs_dir, monkeypatch):
    home = tmp_path/'home of Jane'
    monkeypatch.setenv('HOME', str(home))
    photos = photographs(home/'private'/'photos', range(14))
    (photos/'cat/IMG_000.jpg').write_bytes((photos/'cat/IMG_000.jpg').read_bytes()[:400])   # damaged
    os.symlink(home/'private'/'not there.jpg', photos/'cat/link.jpg')
    record = train(lenet(photos))
    failed = replace(record.run, seed=1)
    write_record(Record(failed, 'failed', error=f'OSError: {photos}/cat/IMG_001.jpg is gone; see {home}/log'))
    out = tmp_path/'out'
    copy_record(record, out/'records')
    write_cards([record], out/'cards')
    for kind in ['.pt2'] + ['.onnx']*all(map(find_spec, ('onnx', 'onnxscript', 'onnxruntime'))):
        export_model(record, out/f'model{kind}', images=[*photos.glob('dog/*.jpg')][:3])
    secrets = [str(photos), str(home), 'home of Jane', 'private', 'SecretCamera', 'Exif\0', '2024:02:03', str(Path(__file__).parent.parent)]
    assert not leaks(runs_dir, secrets) and not leaks(out, secrets)
    assert leaks(photos, ['SecretCamera']), 'the photographs do hold it'
    skipped = read_record(record.path).info['data']['skipped']['files']
    assert {s['path'] for s in skipped} == {'cat/IMG_000.jpg', 'cat/link.jpg'}
    assert 'photos/cat/IMG_001.jpg is gone; see ~/log' in json.loads((runs_dir/run_id(failed)/'record.json').read_text())['error']


@pytest.mark.parametrize('told', [dict(input_path='/home/jane/nbs/run_study.ipynb', output_path='/home/jane/runs/x.ipynb', duration=3.5),
                                  dict(input_path='nbs/run_study.ipynb'), {}, None], ids=str)
def test_the_executed_notebook_in_a_record_names_no_folder(told, tmp_path):
    from imgstudy.sweep.workers import _forget_folders
    cells = [dict(cell_type='markdown', metadata={}, source=['Käse, 猫'])]
    notebook = dict(cells=cells, metadata={} if told is None else dict(papermill=told), nbformat=4, nbformat_minor=5)
    (tmp_path/'a.ipynb').write_text(json.dumps(notebook), encoding='utf-8')
    _forget_folders(tmp_path/'a.ipynb')
    again = json.loads((tmp_path/'a.ipynb').read_text(encoding='utf-8'))
    assert again['cells'] == cells and '/' not in json.dumps(again['metadata'])
    assert {*again['metadata'].get('papermill', {})} == {*(told or {})}


@pytest.mark.parametrize('n, how, says', [
    (1, {}, 'no images of eagle to validate, as there are too few; no images of eagle to test'), (2, {}, 'no images of eagle to'),
    (1, dict(groups='duplicates'), None), (1, dict(subset=8), 'no images of eagle'), (1, dict(groups='name:(.)'), None),
    (1, dict(folds=2, fold=0), None), (1, dict(folds=2, fold=1), None), (1, dict(class_weights='balanced'), 'no images of eagle')])
def test_a_new_class_with_one_image(n, how, says, tmp_path, runs_dir, capsys):
    "A clear line: it trains, and says what cannot be tested; or one message."
    photos = photographs(tmp_path/'photos', range(12))
    train(lenet(photos))
    photographs(photos, range(n), seed=9, names=['eagle'])
    try: data = load_data(lenet(photos, **how))
    except StudyError as e: return says is None or pytest.fail(str(e))
    said = capsys.readouterr().out
    assert (says or '') in said and 'eagle' in data.classes and (data.of('train').label == 'eagle').any()


def test_copies_are_kept_apart_when_a_folder_has_grown(tmp_path, runs_dir):
    "The old split stays; new copies of what tests are not trained on."
    photos = photographs(tmp_path/'photos', range(12))
    first = lenet(photos)
    train(first)
    old = splits(first)
    tested = old.index[old == 'test'][0]
    shutil.copy(photos/tested, photos/tested.split('/')[0]/'copy.jpg')
    photographs(photos, range(20, 30), seed=3)
    train(lenet(photos))
    data = load_data(lenet(photos, groups='duplicates'))
    assert not data.leaked and {*old.index[old == 'test']} <= {*data.of('test').path}


def test_a_class_that_only_tests(tmp_path, runs_dir):
    photos = photographs(tmp_path/'photos', range(12))
    train(lenet(photos))
    photographs(photos, range(1), seed=9, names=['eagle'])
    with pytest.raises(StudyError, match="The class 'eagle' has 1 image, of which none is left to train on|only 1 image to train on"):
        for fold in range(3): load_data(lenet(photos, folds=3, fold=fold))
