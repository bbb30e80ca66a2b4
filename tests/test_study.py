"The study notebook as its users run it: papermill from several places, with good and with bad parameters."
import json, os, subprocess, sys
from pathlib import Path
import pytest
from imgstudy.records import read_record, verify_record
from imgstudy.runs import make_run, run_parameters

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


def test_every_field_of_run_and_recipe_is_a_parameter(runs_dir, tmp_path):
    recipe = dict(epochs=1, lr=0.02, wd=0.3, bs=50, opt='sgd', schedule='cosine')
    other = dict(dataset='digits', model='lenet5', init='scratch', size=28, augment='none', subset=200, precision='fp32', split_seed=4)
    assert set(recipe) | set(other) | {'seed'} == run_parameters, 'name the new parameter here'
    named = [a for k, v in (recipe | other | dict(find_lr=True)).items() for a in ('-p', k, v)]
    done = papermill(study, tmp_path/'out.ipynb', *named, '-y', 'seeds: [7]')
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_record(next(runs_dir.iterdir())).run == make_run(**recipe, **other, seed=7)


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
