"The study notebook as its users run it: papermill from several places, with good and with bad parameters."
import json, os, subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from imgstudy.records.record import read_record, verify_record
from imgstudy.runs import run_parameters, run_to_dict
from imgstudy.study.create import create_run

top = Path(__file__).parent.parent
study = top/'nbs/run_study.ipynb'
quick = ['-p', 'model', 'lenet5', '-p', 'epochs', '1', '-p', 'seeds', '1', '-p', 'subset', '200']


def papermill(*args, cwd=top, **kwargs):
    env = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}
    return subprocess.run(['papermill', *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, **kwargs)


def outputs(path): return [o for c in json.loads(Path(path).read_text())['cells'] for o in c.get('outputs', [])]


@pytest.mark.parametrize('cwd', ['.', 'nbs'])
def test_leaves_a_record(cwd, runs_dir, tmp_path):
    done = papermill(study, tmp_path/'out.ipynb', *quick, '--log-output', cwd=top/cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'epoch 1/1: train loss' in done.stderr, 'progress must be visible while it runs'
    (folder,) = runs_dir.iterdir()
    record = read_record(folder)
    verify_record(record)
    assert (record.outcome, record.run.model, record.run.recipe.epochs, record.info['data']['counts']['train']) == ('finished', 'lenet5', 1, 200)
    assert sorted(p.name for p in folder.iterdir()) == ['history.csv', 'predictions.npz', 'record.json', 'weights.safetensors']
    assert (tmp_path/'out.ipynb').stat().st_size < 2_000_000
    assert sum('image/png' in o.get('data', {}) for o in outputs(tmp_path/'out.ipynb')) >= 6


def test_piped(runs_dir):
    "papermill writes the notebook to its output when no path is given and the output is a pipe."
    done = papermill(study, *quick, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)['cells'][-1]['outputs']
    assert len(list(runs_dir.iterdir())) == 1


# Some fields exclude each other, so two runs name them all; values that are not the defaults wherever one run can take them.
stepwise = dict(
    dataset='digits', model='cnn3', init='scratch', size=16, augment='flip', normalize='half', interpolation='bicubic', subset=100,
    folds=3, fold=1, split_seed=4, precision='fp32', epochs=2, lr=0.02, wd=0.3, bs=50, opt='sgd', schedule='step', warmup=0.5, gamma=0.5,
    step_epochs=1, momentum=0.8, nesterov=True, decay_all=True, clip=1.5, dropout=0.2, label_smoothing=0.1, class_weights='balanced', mixup=0.2, ema=0.9, tta=1, patience=1,
    min_epochs=2, frozen_epochs=1, freeze_norm=True, layer_decay=0.7)
one_cycle = dict(dataset='digits', model='lenet5', size=16, subset=100, epochs=1, schedule='one_cycle', lr_start=1e-4, momentum_low=0.6,
                 cutmix=0.8, tune='gradual', head_init='zero', valid=0, max_bad=3, image_range=(0., 200.), torch_compile=False) # True takes a C++ compiler


own_images = dict(layout='split/class/group', grown_from='fresh', image_col='file', label_col='what', split_col='part', groups='who') # of folders; of tables


def test_every_field_of_run_and_recipe_is_named_here():
    assert set(stepwise) | set(one_cycle) | set(own_images) | {'seed'} == run_parameters, 'name the new parameter'


@pytest.mark.parametrize('kind', ['folder', 'csv'])
def test_fields_for_images_of_your_own(kind, runs_dir, tmp_path):
    rows = [(f'{s}/{c}/{c}{g}/{i}.png', c, s, f'{c}{g}') for s in ('train', 'test') for c in 'ab' for g in range(2) for i in range(4)]
    for k, (path, *_) in enumerate(rows):
        (tmp_path/'x'/path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 5*k, np.uint8)).save(tmp_path/'x'/path)
    pd.DataFrame(rows, columns=['file', 'what', 'part', 'who']).to_csv(tmp_path/'x/t.csv', index=False)
    params = {k: v for k, v in own_images.items() if (k in ('layout', 'grown_from')) == (kind == 'folder')}
    dataset = f'folder:{tmp_path}/x' if kind == 'folder' else f'csv:{tmp_path}/x/t.csv'
    given = dict(dataset=dataset, model='lenet5', epochs=1, size=16, **params)
    done = papermill(study, tmp_path/'out.ipynb', *[a for k, v in given.items() for a in ('-p', k, v)], '-y', 'seeds: [7]')
    assert done.returncode == 0, done.stderr[-2000:]
    record = read_record(next(runs_dir.iterdir()))
    assert record.run == create_run(**given, seed=7) and record.info['data']['counts'] == dict(train=8, valid=8, test=16)


@pytest.mark.parametrize('params', [stepwise, one_cycle], ids=['stepwise', 'one_cycle'])
def test_every_field_of_run_and_recipe_is_a_parameter(params, runs_dir, tmp_path):
    named = [a for k, v in (params | dict(find_lr=params is stepwise)).items() for a in ('-p', k, v)]
    done = papermill(study, tmp_path/'out.ipynb', *named, '-y', 'seeds: [7]')
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = runs_dir.iterdir()
    record = read_record(folder)
    verify_record(record)
    assert record.run == create_run(**params, seed=7)
    said = run_to_dict(record.run)
    assert {k: v for k, v in (said | said['recipe']).items() if k in params} == params


@pytest.mark.parametrize('name, value, message', [
    ('modle', 'lenet5', "There is no parameter 'modle'. Did you mean 'model'"),
    ('model', 'lenet', "There is no model 'lenet'. Did you mean 'lenet5'"),
    ('dataset', 'digit', "There is no dataset 'digit'. Did you mean 'digits'"),
    ('epochs', 'ten', "`epochs` must be a valid integer, not 'ten' (str). Try epochs=10."),
    ('lr', '-1', '`lr` must be greater than 0, not -1'),
    ('bs', '0', '`bs` must be greater than or equal to 1, not 0'),
    ('seeds', '[1,2]', "a list is -y 'seeds: [0, 1, 2]'"),
    ('subset', '5', '`subset` must be a fraction of at most 1 or a whole number from 10'),
])
def test_bad_parameters(name, value, message, runs_dir, tmp_path):
    done = papermill(study, tmp_path/'out.ipynb', '-p', name, value)
    assert done.returncode != 0
    (error,) = [o for o in outputs(tmp_path/'out.ipynb') if o['output_type'] == 'error']
    assert error['ename'] == 'StudyError' and message in error['evalue']
    assert len(error['traceback']) == 1, 'one paragraph, no traceback'
    assert not runs_dir.exists(), 'nothing was trained'
