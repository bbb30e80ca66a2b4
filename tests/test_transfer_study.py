"The notebooks as they are given parameters: both sides of a pair, the probe beside them, and a search, on the images that were meant."
import contextlib, io, json
import matplotlib, matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest, torch
from dataclasses import replace
from pathlib import Path
from PIL import Image
from safetensors.torch import save_file
from imgstudy import best as search
from imgstudy.cli import answer
from imgstudy.core import StudyError
from imgstudy.data.split import load_data, part_of
from imgstudy.models.register import create_model
from imgstudy.runs import Run, fields_of, run_id
from imgstudy.study.create import create_run, plan_transfer, probe_of
from imgstudy.training.train import train

top = Path(__file__).parent.parent
quick = dict(model='lenet5', size=32, epochs=1, bs=8, seeds=2)


def sources(name): return [''.join(c['source']) for c in json.loads((top/f'nbs/{name}.ipynb').read_text())['cells'] if c['cell_type'] == 'code']


def execute(name, given, until=''):
    "The variables and the output of a notebook with parameters `given`, up to the cell that contains `until`."
    first, *rest = sources(name)
    names, out = dict(display=print), io.StringIO()
    with contextlib.redirect_stdout(out), matplotlib.rc_context():
        exec(first, names)
        names |= given
        for source in rest:
            exec(source, names)
            if until and until in source: break
    plt.close('all')
    return names, out.getvalue()


@pytest.fixture
def photos(tmp_path, monkeypatch, runs_dir):
    "Images of two animals, five of each filmed together, a table that does not say which column is the class, and weights."
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('IMGSTUDY_PROGRESS', 'lines')
    rng, rows = np.random.default_rng(0), []
    for c, grey in (('cat', 70), ('dog', 170)):
        (tmp_path/'pics'/c).mkdir(parents=True)
        for i in range(30):
            name = f'{c}/w{i//3}_{i}.png'
            Image.fromarray(rng.normal(grey, 30, (32, 32, 3)).clip(0, 255).astype('uint8')).save(tmp_path/'pics'/name)
            rows.append((name, rng.choice(['day', 'night']), c, f'w{i//3}'))
    pd.DataFrame(rows, columns=['file', 'light', 'animal', 'who']).to_csv(tmp_path/'pics/t.csv', index=False)
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in create_model('lenet5', 7, size=32).state_dict().items()}, tmp_path/'w.safetensors')
    return tmp_path


table = dict(dataset='csv:{}/pics/t.csv', label_col='animal', groups='who')
folder = dict(dataset='folder:{}/pics', layout='class', groups='name:^(w[0-9]+)_', interpolation='bilinear')
readings = dict(
    the_table=table, the_folder=folder, image_col=table | dict(image_col='file', precision='fp32'),
    damaged=folder | dict(max_bad=3, normalize='half', split_seed=4), a_fold=folder | dict(folds=5, fold=2, image_range=(0., 200.)),
    a_part=table | dict(subset=.5))
kept = sorted(fields_of(Run) - {'recipe', 'seed', 'augment', 'torch_compile'})


def at(photos, params): return params | dict(dataset=params['dataset'].format(photos), init=f'file:{photos}/w.safetensors')


@pytest.mark.parametrize('reading', readings)
def test_the_probe_sees_the_images_of_the_trainings(reading, photos):
    names, _ = execute('transfer_study', quick | dict(seeds=1) | at(photos, readings[reading]), 'display(loaded')
    shown, ran = {}, lambda run, data: shown.update(run=run)
    (cell,) = [s for s in sources('transfer_study') if 'a probe needs' in s]
    with contextlib.suppress(AttributeError): exec(cell, names | dict(train_once=ran)) # nothing is trained
    probe, trained = shown['run'], names['transfer'][0]
    assert {k: getattr(probe, k) for k in kept} == {k: getattr(trained, k) for k in kept} and probe.recipe.tune == 'probe'
    pd.testing.assert_frame_equal(load_data(probe).items, load_data(trained).items)
    for k, v in readings[reading].items(): assert k == 'dataset' or getattr(probe, k) == v


def test_a_probe_beside_a_training_has_all_of_its_fields(photos):
    "Values that are not the defaults in two runs, so that a new field cannot be forgotten."
    base = dict(model='lenet5', size=32, seed=7, augment='flip', normalize='half', interpolation='bilinear', image_range=(0., 200.), subset=.5, max_bad=3,
                split_seed=4, precision='fp32', epochs=3, tune='probe_then_all')
    runs = [create_run(**base | at(photos, folder) | dict(folds=5, fold=2, grown_from='0'*12)), create_run(**base | at(photos, table) | dict(image_col='file'))]
    runs[1] = replace(runs[1], split_col='part')
    default = Run('digits', 'lenet5')
    assert {k for r in runs for k in kept if getattr(r, k) != getattr(default, k)} | {'valid'} | {'model'} == set(kept), 'give the new field a value'
    for run in runs:
        probe = probe_of(run)
        assert {k: getattr(probe, k) for k in kept} == {k: getattr(run, k) for k in kept}
        assert (probe.seed, probe.augment, probe.torch_compile, probe.recipe.tune) == (0, 'none', None, 'probe')
    with pytest.raises(StudyError, match='pretrained weights'): probe_of(create_run(**base | dict(dataset='digits', tune=None)))


loaded_only = [dict(tune='head'), dict(tune='gradual', layer_decay=.5), dict(frozen_epochs=1, freeze_norm=True), dict(tune='all', head_init='zero'), dict(tune='probe_then_all')]


@pytest.mark.parametrize('given', loaded_only, ids=str)
def test_from_scratch_all_weights_are_trained(given, photos):
    "Whatever is given for loaded weights; the side from scratch is that of a plan without it."
    images = at(photos, folder)
    _, (scratch, _), (transfer, _) = plan_transfer(**quick | images | given)
    assert scratch == plan_transfer(**quick | images)[1][0] and scratch.recipe.tune is None
    assert {k: getattr(transfer.recipe, k) for k in given} == given and transfer.recipe.epochs == 1
    asked = plan_transfer(**quick | images | given, scratch_with=dict(tune='head'))[1][0]
    assert asked.recipe.tune == 'head', 'said of that side, it holds'


def test_after_a_source_both_sides_draw_the_same_head():
    first, (scratch,), (transfer,) = plan_transfer(dataset='digits_high', source='digits_low', model='lenet5', seeds=1, tune='head', frozen_epochs=None, head_init='zero')
    assert (scratch.recipe.tune, transfer.recipe.tune) == (None, 'head') and scratch.recipe.head_init == transfer.recipe.head_init == 'zero'
    assert transfer.init == f'run:{run_id(first[0])}' and first[0].recipe.tune is None


@pytest.mark.parametrize('given', [dict(tune='probe'), dict(transfer_with=dict(tune='probe')), dict(tune='probe', lr=.01, augment='flip', tta=2, seeds=[4, 9])], ids=str)
def test_a_probe_and_a_training_are_paired_over_splits(given, photos):
    sources, scratch, transfer = plan_transfer(**quick | at(photos, folder) | given)
    seeds = given.get('seeds', [0, 1])
    assert [part_of(r) for r in scratch] == [part_of(r) for r in transfer]
    assert [(r.seed, r.split_seed) for r in scratch] == [(s, s) for s in seeds] and [(r.seed, r.split_seed) for r in transfer] == [(0, s) for s in seeds]
    assert all(r.recipe.epochs == 1 and r.recipe.lr == given.get('lr', scratch[0].recipe.lr) for r in scratch)
    assert {r.augment for r in transfer} == {'none'} and all(r == probe_of(r) for r in transfer)


@pytest.mark.parametrize('given, says', [
    (dict(tune='probe', split_seed=3), r'leave `split_seed` out, and name the splits by seeds, as in seeds=\[3\]'),
    (dict(transfer_with=dict(tune='probe', split_seed=3)), 'repeated over splits: leave `split_seed` out'),
    (dict(tune='probe', valid=0), 'valid=0 leaves none'), (dict(tune='probe', frozen_epochs=1), 'leave one of them out'),
    (dict(transfer_with=dict(tune='probe', epochs=3)), 'leave out epochs'), (dict(transfer_with=dict(init='run:x')), '`init` is not for one side'),
    (dict(scratch_with=dict(init='imagenet')), '`init` is not for one side'), (dict(transfer_with=dict(seed=4)), '`seed` is not for one side'),
    (dict(scratch_with='{epochs: 3}'), "`scratch_with` is a dictionary, with papermill -y 'scratch_with: ")], ids=str)
def test_what_cannot_be_paired_is_refused(given, says):
    with pytest.raises(StudyError, match=says): plan_transfer(dataset='digits', init='file:w.pth', model='lenet5', **given)


@pytest.mark.parametrize('tune', [None, 'head', 'probe'])
def test_the_notebook_from_end_to_end(tune, photos, runs_dir):
    names, said = execute('transfer_study', quick | at(photos, table) | dict(tune=tune))
    over = 'splits' if tune == 'probe' else 'seeds'
    assert f'95 % intervals over n=2 {over}' in said
    trained = [r.info['model']['trained'] for r in names['from_scratch']]
    assert trained == [names['from_scratch'][0].info['model']['parameters']]*2, 'from scratch, every weight is trained'
    assert len([*runs_dir.glob('*/record.json')]) == (4 if tune == 'probe' else 5), 'the probe shown is the first of the pairs, or one more'


def test_without_photographs_and_weights_the_notebook_says_how_to_bring_them(tmp_path, monkeypatch, runs_dir):
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path/'empty'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    _, said = execute('transfer_study', {}, 'plan_transfer(**params)')
    assert 'No photographs were found' in said and 'folder:PATH' in said and '200 images of digits' in said
    with pytest.raises(StudyError, match='pretrained weights of resnet18 were not found: .*-p source digits_low'):
        execute('transfer_study', dict(model='resnet18'), 'plan_transfer(**params)')
    remedy = execute('transfer_study', dict(dataset='digits_high', source='digits_low', model='lenet5'), 'plan_transfer(**params)')[0]
    assert remedy['transfer'][0].init.startswith('run:')


def said_by_run_study(**given): return execute('run_study', dict(dataset='digits', model='lenet5', size=32, subset=100, epochs=1, seeds=1) | given, 'create_learner(')[1]


def test_run_study_says_that_a_head_is_drawn_only_where_it_is(photos):
    same = train(create_run(dataset='digits', model='lenet5', size=32, subset=100, epochs=1)).id
    high = train(create_run(dataset='digits_high', model='lenet5', size=32, subset=100, epochs=1)).id
    drawn = 'from a head that is drawn at random'
    assert drawn in said_by_run_study(init=f'file:{photos}/w.safetensors') and drawn in said_by_run_study(init=f'run:{high}')
    for other in (dict(init=f'run:{same}'), dict(), dict(init=f'run:{high}', tune='head'), dict(init=f'run:{high}', valid=0)):
        assert drawn not in said_by_run_study(**other), other


def test_a_finder_has_nothing_to_find_for_a_probe(photos):
    with pytest.raises(StudyError, match='leave it out'): said_by_run_study(init=f'file:{photos}/w.safetensors', tune='probe', find_lr=True)


@pytest.mark.parametrize('given', [dict(label_col='animal', groups='who'), dict(label_col='animal', image_col='file', max_bad=.02), dict(label_col='light', image_range='0,200', max_bad=3), {}], ids=str)
def test_the_search_for_the_best_model_reads_the_images_as_told(given, photos, monkeypatch):
    "Whatever the parameter cell names, or does not."
    asked = {}
    def best(dataset, budget, networks, size=None, **reading): asked.update(reading)
    monkeypatch.setattr(search, 'best', best)
    execute('best_model', dict(dataset=f'csv:{photos}/pics/t.csv') | given, 'found = best(')
    assert asked == given
    with pytest.raises(StudyError, match="There is no parameter 'subset'"): execute('best_model', given | dict(subset=100), 'found = best(')


@pytest.fixture
def given(photos):
    "The same images in folders that say what trains, validates and tests."
    for c in ('cat', 'dog'):
        for i, file in enumerate(sorted((photos/'pics'/c).glob('*.png'))):
            to = photos/'given'/('train', 'train', 'valid', 'test')[i % 4]/c
            to.mkdir(parents=True, exist_ok=True)
            (to/file.name).write_bytes(file.read_bytes())
    return photos


once = 'The split of these images is given, and a probe draws nothing else: it is fitted once.'


def test_a_probe_on_a_given_split_is_fitted_once(given, runs_dir, capsys):
    "Three seeds number three splits, which are one here: the same probe three times is not n=3."
    params = dict(dataset=f'folder:{given}/given', model='lenet5', size=32, init=f'file:{given}/w.safetensors', tune='probe')
    names, said = execute('run_study', params, 'train.train_all(runs, data)')
    assert once in said and len(names['results']) == 1
    train_ = ['train', params['dataset'], '--model', 'lenet5', '--size', '32', '--init', params['init'], '--tune', 'probe', '--seeds', '3']
    answer(train_)
    said = capsys.readouterr().out
    assert once in said and '1 training of lenet5' in said and len([*runs_dir.glob('*/record.json')]) == 1
    answer([*train_, '--subset', '12'])  # of which each split draws others
    said = capsys.readouterr().out
    assert once not in said and '3 trainings of lenet5' in said and len([*runs_dir.glob('*/record.json')]) == 4


def test_pairs_with_a_probe_on_a_given_split_are_refused(given):
    params = dict(dataset=f'folder:{given}/given', init=f'file:{given}/w.safetensors', model='lenet5', size=32, epochs=1, tune='probe')
    with pytest.raises(StudyError, match='all its pairs would have the same probe: take one pair'): execute('transfer_study', params)
    assert len(execute('transfer_study', params | dict(seeds=1), 'zip(scratch, transfer)')[0]['pairs']) == 1
