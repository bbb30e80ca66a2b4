"`decide`: the answer after the fewest trainings, goes on where it stopped, and refuses pairs that are none."
import dataclasses, os, shutil
import numpy as np, pytest
from PIL import Image
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.decide import check_pair, decide, decision_text, is_drawn, order_pairs
from imgstudy.photos import within
from imgstudy.records.record import Record, read_record, write_record
from imgstudy.study.create import create_run
from imgstudy.training.fit import Diverged
from imgstudy.training.train import train

adamw = create_run(dataset='digits', model='lenet5', epochs=2, subset=150, augment='none')
sgd = dataclasses.replace(adamw, recipe=dataclasses.replace(adamw.recipe, opt='sgd', lr=.05, nesterov=True))


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    root = tmp_path_factory.mktemp('two')
    return [train(r, root=root) for r in (adamw, sgd)]


@pytest.fixture
def runs(two, tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path))
    for r in two: shutil.copytree(r.path, tmp_path/r.id)
    return [read_record(tmp_path/r.id) for r in two]


def trained(root): return len([*root.glob('*/record.json')])


def test_goes_on_where_the_budget_ended(runs, tmp_path, capsys):
    a, b = runs
    words = ['decide', a.id, str(b.path), '--margin', '3', '--budget']
    cli.answer([*words, '0.01s'])
    said = capsys.readouterr().out
    assert trained(tmp_path) == 2 and 'Not decided yet' in said and 'goes on' in said and 'of other seeds' in said
    cli.answer([*words, '4m'])
    said, n = capsys.readouterr().out, trained(tmp_path)
    assert 'is better.' in said or 'No difference beyond' in said
    assert n >= 10 and 'IMGSTUDY_DEADLINE' not in os.environ
    cli.answer([*words, '0.01s'])
    assert trained(tmp_path) == n and said.splitlines()[-3:] == capsys.readouterr().out.splitlines()[-3:]
    other = decide(b, a, margin=3, budget='1s', say=lambda line: None) # the other way round
    assert other.answer == {'a': 'b', 'b': 'a', 'none': 'none'}[decide(a, b, margin=3, budget='1s', say=lambda line: None).answer]


def test_what_is_half_done_comes_first(runs, tmp_path):
    a, b = runs
    train(dataclasses.replace(adamw, seed=5), root=tmp_path)
    assert [k for k, *_ in order_pairs(a.run, b.run, [tmp_path])][:3] == [0, 5, 1]


bad = {'--margin 0': 'points above 0', '--margin -1': 'points above 0', '--margin big': 'invalid float', '--budget soon': 'is no time'}


@pytest.mark.parametrize('words', bad)
def test_bad_options(words, runs):
    with pytest.raises(StudyError, match=bad[words]): cli.answer(['decide', *(r.id for r in runs), *words.split()])


@pytest.mark.parametrize('change,says', [(dict(subset=140), 'the subset'), (dict(split_seed=1), 'split_seed'), (dict(valid=0), 'validation'),
                                         (dict(dataset='digits_low', subset=None), 'the data set'), (dict(seed=4), 'the same training')])
def test_no_pair(change, says, runs, tmp_path):
    other = train(dataclasses.replace(adamw, **change), root=tmp_path)
    with pytest.raises(StudyError, match=says): cli.answer(['decide', runs[0].id, other.id])


def test_the_same_run_and_none(runs):
    with pytest.raises(StudyError, match='the same training'): cli.answer(['decide', runs[0].id, runs[0].id])
    with pytest.raises(StudyError, match='There is no record'): cli.answer(['decide', runs[0].id, 'digits-lenet5-s0-00000000'])


def test_a_failed_run(runs, tmp_path):
    broken = dataclasses.replace(sgd, recipe=dataclasses.replace(sgd.recipe, lr=1e30))
    with pytest.raises(Exception): train(broken, root=tmp_path)
    from imgstudy.runs import run_id
    with pytest.raises(StudyError, match='it failed'): decide(runs[0], run_id(broken))


@pytest.mark.parametrize('change', [{}, dict(subset=20)])
def test_probes_on_a_given_split_are_one_pair(change, tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path/'runs')); monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    rng = np.random.default_rng(0)
    for i, folder in enumerate(f'{s}/{c}' for s in ('train', 'valid', 'test') for c in 'ab'):
        (tmp_path/'given'/folder).mkdir(parents=True)
        for j in range(15): Image.fromarray(rng.integers(0, 120 + 100*(i % 2), (10, 10, 3), np.uint8)).save(tmp_path/f'given/{folder}/{j}.png')
    start = train(dataclasses.replace(adamw, seed=8))
    a, b = (train(create_run(dataset=f'folder:{tmp_path}/given', model='lenet5', size=28, init=f'run:{start.id}', tune='probe', normalize=n, **change))
            for n in ('dataset', 'none'))
    if change.get('subset'): return check_pair(a, b) # each split draws another
    with pytest.raises(StudyError, match='one and the same.*compare-runs.*subset'): cli.answer(['decide', a.id, b.id])
    assert len([*(tmp_path/'runs').glob('*/record.json')]) == 3 and not is_drawn(a.run)


def test_a_seed_that_diverges_counts_as_chance(runs, tmp_path, monkeypatch):
    asked, told = [], []
    def some(run, root):
        asked.append(run)
        if (run.recipe.opt, run.seed) != ('sgd', 1): return train(run, root=root)
        write_record(Record(run, 'failed', error='Diverged: The loss became nan'), root=root)
        raise Diverged('The loss became nan')
    monkeypatch.setattr('imgstudy.decide.train', some)
    said = decide(*runs, margin=2, budget='3m', root=tmp_path, say=told.append)
    assert len(said.differences) >= 5 and said.diverged == (0, 1) and '0 of A, 1 of B' in decision_text(said)
    assert 'B 10.00 % (diverged: chance)' in told[1] and said.differences[1] > 5
    n = len(asked)
    assert decide(*runs, margin=2, budget='1s', root=tmp_path, say=told.append).differences == said.differences and len(asked) == n


def test_a_time_limit_does_not_put_off_an_earlier_deadline(monkeypatch):
    monkeypatch.setenv('IMGSTUDY_DEADLINE', '7000000000')
    with within('9m'): assert float(os.environ['IMGSTUDY_DEADLINE']) < 7e9
    monkeypatch.setenv('IMGSTUDY_DEADLINE', '1000')
    with within('9m'): assert float(os.environ['IMGSTUDY_DEADLINE']) == 1000
    assert os.environ['IMGSTUDY_DEADLINE'] == '1000'
